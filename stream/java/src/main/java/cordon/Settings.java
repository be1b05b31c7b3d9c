package cordon;

import java.io.Serializable;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * What the sink is told, from the options of its table (stream/program.py writes them).
 *
 * @param generation the store's generation that this run feeds; positions are published under it
 * @param functions text of the function library
 * @param entities by code
 * @param topics Kafka topic by code
 * @param watermark key of the hash of positions
 * @param lanesKey key of the hash of the positions of single lanes, in the same slot
 * @param lanes id of each grouping subtask's position rows; one if there is one subtask
 */
record Settings(
        Place place,
        String generation,
        String functions,
        Map<Integer, Entity> entities,
        Map<Integer, String> topics,
        String watermark,
        String lanesKey,
        List<String> lanes,
        long lingerMs,
        int batchRowsMax,
        long answerMs,
        long lostAfterMs,
        long firstPauseMs,
        long longestPauseMs)
        implements Serializable {

    /** An entity's merge function, its key around the pseudonym, and the sizes of its records by first byte. */
    record Entity(String function, String before, String after, int[] sizes) implements Serializable {}

    /** {@code code function before after section=size,...} per line. */
    static Map<Integer, Entity> entities(String text) {
        Map<Integer, Entity> found = new HashMap<>();
        for (String line : text.split("\n")) {
            String[] fields = line.split(" ");
            int[] sizes = new int[256];
            for (String size : fields[4].split(",")) {
                String[] sides = size.split("=");
                sizes[Integer.parseInt(sides[0])] = Integer.parseInt(sides[1]);
            }
            found.put(Integer.parseInt(fields[0]), new Entity(fields[1], fields[2], fields[3], sizes));
        }
        return found;
    }

    /** {@code code=topic,...}. */
    static Map<Integer, String> topics(String text) {
        Map<Integer, String> found = new HashMap<>();
        for (String one : text.split(",")) {
            String[] sides = one.split("=", 2);
            found.put(Integer.parseInt(sides[0]), sides[1]);
        }
        return found;
    }
}
