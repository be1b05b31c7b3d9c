package cordon;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;

/**
 * The store, or every primary of the cluster: blocks of idempotent commands, sent until they are answered.
 *
 * <p>After any trouble all connections are closed and the cluster's map is forgotten: whatever it was, a server
 * that restarted or a slot that moved, the next attempt begins from what is true then.
 */
final class Link implements AutoCloseable {
    private static final int SLOTS = 16_384;

    /** What to send where; asked again for every attempt, with the cluster's map read. */
    interface Blocks {
        void write(Map<Place.Node, Block> to);
    }

    /** Commands for one server. */
    static final class Block {
        final Bytes commands = new Bytes();
        int count;
    }

    private final Settings settings;
    private final Map<Place.Node, Connection> open = new HashMap<>();
    private Place.Node[] owners = {};

    Link(Settings settings) {
        this.settings = settings;
    }

    /** The server that holds a slot. */
    Place.Node owner(int slot) {
        return settings.place().cluster() ? owners[slot] : settings.place().seeds().get(0);
    }

    /** Send and wait for all integer replies; blocks for at most the patience. */
    void settle(Blocks blocks) throws StoreLost, StoreRefused, InterruptedException {
        long giveUpAt = System.nanoTime() + settings.lostAfterMs() * 1_000_000;
        long pauseMs = settings.firstPauseMs();
        while (true) {
            try {
                attempt(blocks);
                return;
            } catch (StoreBusy error) {
                close();
                if (Thread.interrupted()) {
                    throw new InterruptedException();
                }
                if (System.nanoTime() - giveUpAt >= 0) {
                    throw new StoreLost(
                            "no answer for " + settings.lostAfterMs() / 1_000.0 + " s: " + error.getMessage());
                }
                if (error instanceof StoreBusy.FunctionMissing) {
                    load();
                }
                Thread.sleep(pauseMs);
                pauseMs = Math.min(2 * pauseMs, settings.longestPauseMs());
            }
        }
    }

    private void attempt(Blocks blocks) throws StoreBusy, StoreRefused {
        readMap();
        Map<Place.Node, Block> parts = new HashMap<>();
        blocks.write(parts);
        for (Map.Entry<Place.Node, Block> part : parts.entrySet()) {
            connection(part.getKey()).send(part.getValue().commands);
        }
        for (Map.Entry<Place.Node, Block> part : parts.entrySet()) {
            connection(part.getKey()).settle(part.getValue().count);
        }
    }

    private void load() throws StoreRefused {
        try {
            readMap();
            List<Place.Node> nodes = settings.place().cluster()
                    ? new ArrayList<>(new LinkedHashSet<>(Arrays.asList(owners)))
                    : settings.place().seeds().subList(0, 1);
            for (Place.Node node : nodes) {
                connection(node).ask("FUNCTION", "LOAD", "REPLACE", settings.functions());
            }
        } catch (StoreBusy error) {
            close(); // the next attempt finds out
        }
    }

    private Connection connection(Place.Node node) throws StoreBusy, StoreRefused {
        Connection known = open.get(node);
        if (known == null) {
            known = new Connection(settings.place(), node, settings.answerMs());
            open.put(node, known);
        }
        return known;
    }

    /** The owner of every slot, from the first seed that answers. */
    private void readMap() throws StoreBusy, StoreRefused {
        if (!settings.place().cluster() || owners.length > 0) {
            return;
        }
        StoreBusy trouble = new StoreBusy("no seed");
        for (Place.Node seed : settings.place().seeds()) {
            try {
                owners = owners(seed, connection(seed).ask("CLUSTER", "SLOTS"));
                return;
            } catch (StoreBusy error) {
                trouble = error;
            }
        }
        throw trouble;
    }

    private static Place.Node[] owners(Place.Node seed, Object answer) throws StoreBusy {
        Place.Node[] found = new Place.Node[SLOTS];
        for (Object entry : (List<?>) answer) {
            List<?> range = (List<?>) entry;
            List<?> primary = (List<?>) range.get(2);
            String host = String.valueOf(primary.get(0));
            Place.Node node = new Place.Node(
                    primary.get(0) == null || host.isEmpty() ? seed.host() : host,
                    ((Long) primary.get(1)).intValue(), "");
            int first = ((Long) range.get(0)).intValue();
            Arrays.fill(found, first, ((Long) range.get(1)).intValue() + 1, node);
        }
        long none = Arrays.stream(found).filter(node -> node == null).count();
        if (none > 0) {
            throw new StoreBusy(none + " slots have no owner");
        }
        return found;
    }

    /** Drop all connections and the cluster's map. */
    @Override
    public void close() {
        open.values().forEach(Connection::close);
        open.clear();
        owners = new Place.Node[0];
    }

    /** Redis Cluster's slot of a key with a hash tag: CRC16 (XMODEM) of what the braces hold. */
    static int slot(byte[] key) {
        int crc = 0;
        boolean inside = false;
        for (byte next : key) {
            if (inside && next == '}') {
                break;
            }
            if (inside) {
                crc ^= (next & 0xFF) << 8;
                for (int bit = 0; bit < 8; bit++) {
                    crc = (crc & 0x8000) != 0 ? crc << 1 ^ 0x1021 : crc << 1;
                }
                crc &= 0xFFFF;
            }
            inside |= next == '{';
        }
        return crc % SLOTS;
    }
}
