package cordon;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.StringData;

/**
 * Lets a test drive the two ends of the query without Flink between them: commands on standard input, one answer
 * on standard output for each.
 *
 * <pre>
 * layouts TEXT                  begin anew with these layouts                 ok
 * event CODE ID TIME V,V,...    accumulate a row of the fan-out               the argument in hex, or -
 * kept CODE ID                  what is kept of an entity                     bytes and closed chunks
 * option NAME HEX               an option of the store's table                ok
 * open                          start a feeder with the options               ok
 * row CODE ID HEX               give the feeder a row                         ok, or the failure
 * flush                         wait for the store                            ok, or the failure
 * close                         stop the feeder                               ok
 * </pre>
 */
public final class Drive {
    private Assertion assertion = new Assertion();
    private final Map<String, Assertion.Kept> kept = new HashMap<>();
    private final Map<String, String> options = new HashMap<>();
    private StringData layouts;
    private Feeder feeder;

    private Drive() {}

    public static void main(String[] arguments) throws Exception {
        Drive drive = new Drive();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            System.out.println(drive.answer(line.split(" ")));
            System.out.flush();
        }
    }

    private String answer(String[] words) throws Exception {
        switch (words[0]) {
            case "layouts":
                layouts = StringData.fromString(words[1]);
                assertion = new Assertion();
                kept.clear();
                return "ok";
            case "event":
                return event(Integer.parseInt(words[1]), words[2], Long.parseLong(words[3]), words[4].split(","));
            case "kept":
                Assertion.Kept state = kept.get(words[1] + words[2]);
                int chunks = 0;
                int bytes = state.recent.length;
                for (Long key : state.closed.keys()) {
                    chunks++;
                    bytes += state.closed.get(key).length;
                }
                return bytes + " " + chunks;
            case "option":
                byte[] value = words.length > 2 ? HexFormat.of().parseHex(words[2]) : new byte[0];
                options.put(words[1], new String(value, StandardCharsets.UTF_8));
                return "ok";
            default:
                return feed(words);
        }
    }

    private String event(int code, String id, long time, String[] values) throws Exception {
        long[] numbers = new long[values.length];
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = Long.parseLong(values[i]);
        }
        Assertion.Kept state = kept.computeIfAbsent(code + id, key -> assertion.createAccumulator());
        if (assertion.getValue(state) != null) {
            throw new IllegalStateException("a value was told twice");
        }
        assertion.accumulate(state, code, time, new GenericArrayData(numbers), layouts);
        byte[] said = assertion.getValue(state);
        return said == null ? "-" : HexFormat.of().formatHex(said);
    }

    private String feed(String[] words) throws InterruptedException {
        try {
            switch (words[0]) {
                case "open":
                    feeder = new Feeder(StoreTable.settings(Configuration.fromMap(options)), () -> {});
                    options.clear();
                    return "ok";
                case "row":
                    feeder.add(Integer.parseInt(words[1]), words[2], HexFormat.of().parseHex(words[3]));
                    return "ok";
                case "flush":
                    feeder.flush();
                    return "ok";
                case "close":
                    feeder.close();
                    return "ok";
                default:
                    return "unknown: " + words[0];
            }
        } catch (IOException error) {
            return error.getClass().getSimpleName() + ": " + error.getMessage();
        }
    }
}
