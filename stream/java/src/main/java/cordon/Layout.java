package cordon;

import java.util.HashMap;
import java.util.Map;

/**
 * What is kept of one kind of entity, read from the text that features/sql.py writes into the query:
 *
 * <pre>
 * text    1/entity/entity/...                          the first number is FORMAT
 * entity  code:measures:heads:maps:tier:tier:...
 * tier    index,length ms,keep ms,slot+slot+...        slot: index of a measure, with ^ if it grows by maximum
 * </pre>
 */
record Layout(int measures, int heads, int maps, Tier[] tiers) {
    /** Of this text and of kept bytes: another one is another query, whose checkpoints do not fit. */
    static final String FORMAT = "1";

    /** Tiles of one width; {@code largest[i]} tells whether slot i grows by maximum. */
    record Tier(int index, long length, long keep, int[] slots, boolean[] largest) {
        /** Bytes of a kept tile: u32 tile, u64 slots. */
        int size() {
            return 4 + 8 * slots.length;
        }

        /** The first tile that is kept once {@code newest} was seen (Layout.oldest in Python). */
        long oldest(long newest) {
            return Math.max(0, (newest - keep) / length);
        }
    }

    /** Layouts by code. Throws IllegalArgumentException for a text of another format. */
    static Map<Integer, Layout> parse(String text) {
        String[] parts = text.split("/");
        if (!parts[0].equals(FORMAT)) {
            throw new IllegalArgumentException("layout of format " + parts[0] + ": this jar reads " + FORMAT);
        }
        Map<Integer, Layout> found = new HashMap<>();
        for (int i = 1; i < parts.length; i++) {
            String[] fields = parts[i].split(":");
            Tier[] tiers = new Tier[fields.length - 4];
            for (int t = 0; t < tiers.length; t++) {
                tiers[t] = tier(fields[4 + t].split(","));
            }
            Layout layout = new Layout(number(fields[1]), number(fields[2]), number(fields[3]), tiers);
            found.put(number(fields[0]), layout);
        }
        return found;
    }

    private static Tier tier(String[] fields) {
        String[] named = fields[3].split("\\+");
        int[] slots = new int[named.length];
        boolean[] largest = new boolean[named.length];
        for (int i = 0; i < named.length; i++) {
            largest[i] = named[i].endsWith("^");
            slots[i] = number(named[i].replace("^", ""));
        }
        long length = Long.parseLong(fields[1]);
        return new Tier(number(fields[0]), length, Long.parseLong(fields[2]), slots, largest);
    }

    private static int number(String text) {
        return Integer.parseInt(text);
    }
}
