package cordon;

import java.util.List;
import java.util.Set;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;

/** The connector {@code cordon-store}: the table {@code (code INT, id STRING, argument BYTES)} of the jobs. */
public final class StoreTable implements DynamicTableSinkFactory {
    private static final ConfigOption<String> NODES = text("nodes");
    private static final ConfigOption<Boolean> CLUSTER =
            ConfigOptions.key("cluster").booleanType().defaultValue(false);
    private static final ConfigOption<String> USERNAME = text("username", "");
    private static final ConfigOption<String> PASSWORD = text("password", "");
    private static final ConfigOption<Integer> DATABASE = ConfigOptions.key("database").intType().defaultValue(0);
    private static final ConfigOption<String> GENERATION = text("generation");
    private static final ConfigOption<String> FUNCTIONS = text("functions");
    private static final ConfigOption<String> ENTITIES = text("entities");
    private static final ConfigOption<String> TOPICS = text("topics");
    private static final ConfigOption<String> WATERMARK = text("watermark");
    private static final ConfigOption<String> LANES_KEY = text("lanes-key");
    private static final ConfigOption<String> LANES = text("lanes");
    private static final ConfigOption<Long> LINGER_MS = number("linger-ms", 5);
    private static final ConfigOption<Integer> BATCH_ROWS_MAX =
            ConfigOptions.key("batch-rows-max").intType().defaultValue(4_096);
    private static final ConfigOption<Long> ANSWER_MS = number("answer-ms", 10_000);
    private static final ConfigOption<Long> LOST_AFTER_MS = number("lost-after-ms", 30_000);
    private static final ConfigOption<Long> FIRST_PAUSE_MS = number("first-pause-ms", 50);
    private static final ConfigOption<Long> LONGEST_PAUSE_MS = number("longest-pause-ms", 1_000);

    private static ConfigOption<String> text(String name) {
        return ConfigOptions.key(name).stringType().noDefaultValue();
    }

    private static ConfigOption<String> text(String name, String otherwise) {
        return ConfigOptions.key(name).stringType().defaultValue(otherwise);
    }

    private static ConfigOption<Long> number(String name, long otherwise) {
        return ConfigOptions.key(name).longType().defaultValue(otherwise);
    }

    @Override
    public String factoryIdentifier() {
        return "cordon-store";
    }

    @Override
    public Set<ConfigOption<?>> requiredOptions() {
        return Set.of(NODES, GENERATION, FUNCTIONS, ENTITIES, TOPICS, WATERMARK, LANES_KEY, LANES);
    }

    @Override
    public Set<ConfigOption<?>> optionalOptions() {
        return Set.of(
                CLUSTER, USERNAME, PASSWORD, DATABASE, LINGER_MS, BATCH_ROWS_MAX, ANSWER_MS, LOST_AFTER_MS,
                FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
    }

    @Override
    public DynamicTableSink createDynamicTableSink(Context context) {
        FactoryUtil.TableFactoryHelper helper = FactoryUtil.createTableFactoryHelper(this, context);
        helper.validate();
        return new Table(settings(helper.getOptions()));
    }

    /** The settings in a table's options. */
    static Settings settings(ReadableConfig options) {
        return new Settings(
                new Place(
                        Place.nodes(options.get(NODES)),
                        options.get(CLUSTER),
                        options.get(USERNAME),
                        options.get(PASSWORD),
                        options.get(DATABASE)),
                options.get(GENERATION),
                options.get(FUNCTIONS),
                Settings.entities(options.get(ENTITIES)),
                Settings.topics(options.get(TOPICS)),
                options.get(WATERMARK),
                options.get(LANES_KEY),
                List.of(options.get(LANES).split(",")),
                options.get(LINGER_MS),
                options.get(BATCH_ROWS_MAX),
                options.get(ANSWER_MS),
                options.get(LOST_AFTER_MS),
                options.get(FIRST_PAUSE_MS),
                options.get(LONGEST_PAUSE_MS));
    }

    private record Table(Settings settings) implements DynamicTableSink {
        @Override
        public ChangelogMode getChangelogMode(ChangelogMode requested) {
            return ChangelogMode.upsert();
        }

        @Override
        public SinkRuntimeProvider getSinkRuntimeProvider(Context context) {
            return SinkV2Provider.of(new StoreSink(settings));
        }

        @Override
        public DynamicTableSink copy() {
            return this;
        }

        @Override
        public String asSummaryString() {
            return "online store";
        }
    }
}
