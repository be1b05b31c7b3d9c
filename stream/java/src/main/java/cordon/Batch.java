package cordon;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Rows of the grouping that are on their way: per entity what it asserts, per lane its newest positions. */
final class Batch {
    private record Entity(int code, String id) {}

    private record Lane(int code, int partition, String id) {}

    private record Slot(int section, long number) {}

    private record Record(byte[] argument, int at) {}

    /** A position: how far a partition of a topic was read. */
    record Position(String topic, int partition, String lane, long offset, long time) {}

    private static final int SEEN_SIZE = 17;
    private final Settings settings;
    private final Map<Entity, List<byte[]>> entities = new LinkedHashMap<>();
    private final Map<Lane, byte[]> positions = new LinkedHashMap<>();
    private int rows;

    Batch(Settings settings) {
        this.settings = settings;
    }

    int rows() {
        return rows;
    }

    void add(int code, String id, byte[] argument) {
        rows++;
        if (code < Assertion.FIRST_ENTITY) {
            positions.put(new Lane(code, (int) Bytes.u64(argument, 0), id), argument);
        } else {
            entities.computeIfAbsent(new Entity(code, id), key -> new ArrayList<>(1)).add(argument);
        }
    }

    boolean hasEntities() {
        return !entities.isEmpty();
    }

    /** The newest of every lane and partition. */
    List<Position> positions() {
        List<Position> found = new ArrayList<>();
        positions.forEach((lane, packed) -> found.add(new Position(
                settings.topics().get(lane.code), lane.partition, lane.id,
                Bytes.u64(packed, 8), Bytes.u64(packed, 16))));
        return found;
    }

    /** One merge call per entity, to the server that holds it. */
    void write(Link link, Map<Place.Node, Link.Block> to) {
        Bytes merged = new Bytes();
        for (Map.Entry<Entity, List<byte[]>> entry : entities.entrySet()) {
            Settings.Entity entity = settings.entities().get(entry.getKey().code);
            byte[] key = Resp.bytes(entity.before() + entry.getKey().id + entity.after());
            Place.Node owner = link.owner(settings.place().cluster() ? Link.slot(key) : 0);
            Link.Block block = to.computeIfAbsent(owner, node -> new Link.Block());
            block.count++;
            Resp.command(block.commands, 5);
            Resp.argument(block.commands, "FCALL");
            Resp.argument(block.commands, entity.function());
            Resp.argument(block.commands, "1");
            Resp.argument(block.commands, key);
            List<byte[]> arguments = entry.getValue();
            if (arguments.size() == 1) {
                Resp.argument(block.commands, arguments.get(0));
            } else {
                merge(entity, arguments, merged);
                Resp.argument(block.commands, merged.data(), 0, merged.length());
            }
        }
    }

    /** The last record of every tile, which holds the earlier ones; of marks and heads the greatest. */
    private static void merge(Settings.Entity entity, List<byte[]> arguments, Bytes to) {
        Map<Slot, Record> kept = new HashMap<>();
        for (byte[] argument : arguments) {
            int at = 0;
            while (at < argument.length) {
                int section = argument[at];
                int size = entity.sizes()[section];
                Record record = new Record(argument, at);
                if (section < 3) {
                    kept.put(new Slot(section, Bytes.u32(argument, at + 1)), record);
                } else {
                    long number = size == SEEN_SIZE ? Bytes.u64(argument, at + 1) : 0;
                    kept.merge(new Slot(section, number), record, (a, b) -> last(a, size) > last(b, size) ? a : b);
                }
                at += size;
            }
        }
        to.clear();
        for (Record record : kept.values()) {
            int size = entity.sizes()[record.argument[record.at]];
            to.put(record.argument, record.at, record.at + size);
        }
    }

    /** The u64 at a record's end: a time, or a head; below 2^63. */
    private static long last(Record record, int size) {
        return Bytes.u64(record.argument, record.at + size - 8);
    }
}
