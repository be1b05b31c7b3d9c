package cordon;

import java.util.Map;
import org.apache.flink.table.annotation.DataTypeHint;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.AggregateFunction;

/**
 * The aggregate function of the generated query: {@code assertion(code, time_ms, values, layouts)}.
 *
 * <p>A row is one event as one entity sees it (Observation in features/layout.py): {@code values} are its deltas,
 * heads and marks. The result is what the event touched, as the store's merge functions take it: absolute tiles,
 * then marks, then heads (features/library.py). Only tiles need state. Heads and remembered values enter the
 * store by maximum, so what an event says of them is all that there is to say. Rows below {@link #FIRST_ENTITY}
 * are positions and pass through, packed.
 *
 * <p>A tile is kept exactly as long as the store keeps it: retention counts from the newest time that the
 * asserted rows imply, as the store's does (State.merge), so a tile that is dropped here is dropped there, for
 * good, and a late event for it is left out instead of counted from zero.
 */
public final class Assertion extends AggregateFunction<byte[], Assertion.Kept> {
    private static final long serialVersionUID = 1L;

    /** Codes below are topics. */
    static final int FIRST_ENTITY = 8;

    /** Bytes of a tier's part of {@code recent} before its tiles. */
    private static final int HEAD = 9;

    /** The newest tiles of a tier that lie in {@code recent}; when they are more, the older half leaves. */
    private static final int RECENT_MAX = 4;

    /** Closed tiles whose numbers differ in these bits only lie together. */
    private static final int CHUNK_BITS = 6;

    /**
     * State of one entity. {@code recent}: u64 newest ms, then per tier u8 count of tiles, u32 first and u32 end of
     * the closed chunks, and the tiles (u32 tile, u64 slots) from old to new. {@code closed}: older tiles of the
     * same form by tier and chunk, which is number / 64. Most rows read and write {@code recent} alone.
     */
    public static final class Kept {
        public byte[] recent = new byte[0];
        public MapView<Long, byte[]> closed = new MapView<>();
    }

    /** The closed chunks of the tier at hand: from {@code first}, before {@code end}; 0 and 0 if there are none. */
    private static final class Chunks {
        long first;
        long end;
    }

    private transient Map<Integer, Layout> layouts;
    private transient Chunks chunks;
    private transient Bytes said;
    private transient Bytes after;
    private transient Bytes moved;
    private transient byte[] value;

    @Override
    public Kept createAccumulator() {
        return new Kept();
    }

    /**
     * What the row accumulated last asserts, once: the grouping asks before and after it accumulates, and what
     * it is told before must differ, or it takes the row for no change.
     */
    @Override
    public byte[] getValue(Kept kept) {
        byte[] last = value;
        value = null;
        return last;
    }

    public void accumulate(
            Kept kept,
            Integer code,
            Long time,
            @DataTypeHint(value = "ARRAY<BIGINT>", bridgedTo = ArrayData.class) ArrayData values,
            @DataTypeHint(value = "STRING", bridgedTo = StringData.class) StringData text)
            throws Exception {
        if (layouts == null) {
            layouts = Layout.parse(text.toString());
            chunks = new Chunks();
            said = new Bytes();
            after = new Bytes();
            moved = new Bytes();
        }
        said.clear();
        if (code < FIRST_ENTITY) {
            for (int i = 0; i < values.size(); i++) {
                said.u64(values.getLong(i));
            }
        } else {
            observe(layouts.get(code), kept, time, values);
        }
        value = said.length() == 0 ? null : said.copy();
    }

    private void observe(Layout layout, Kept kept, long time, ArrayData values) throws Exception {
        byte[] recent = kept.recent;
        long newest = newest(layout, recent.length == 0 ? 0 : Bytes.u64(recent, 0), time, values);
        after.clear();
        after.u64(newest);
        int at = Math.min(8, recent.length);
        for (Layout.Tier tier : layout.tiers()) {
            int count = 0;
            chunks.first = chunks.end = 0;
            if (recent.length > 0) {
                count = recent[at];
                chunks.first = Bytes.u32(recent, at + 1);
                chunks.end = Bytes.u32(recent, at + 5);
                at += HEAD;
            }
            int end = at + count * tier.size();
            advance(tier, kept, at, end, tier.oldest(newest), time / tier.length(), values);
            at = end;
        }
        if (newest > 0 && layout.tiers().length > 0) {
            kept.recent = after.copy();
        }
        int firstMark = layout.measures() + layout.heads();
        for (int i = 0; i < layout.maps(); i++) {
            if (values.getLong(firstMark + i) != 0) {
                said.u8(3 + i).u64(values.getLong(firstMark + i)).u64(time);
            }
        }
        for (int i = 0; i < layout.heads(); i++) {
            if (values.getLong(layout.measures() + i) != 0) {
                said.u8(3 + layout.maps() + i).u64(values.getLong(layout.measures() + i));
            }
        }
    }

    /** The newest time that the rows asserted until now imply. */
    private static long newest(Layout layout, long before, long time, ArrayData values) {
        long newest = before;
        for (Layout.Tier tier : layout.tiers()) {
            if (touches(tier, values)) {
                newest = Math.max(newest, time / tier.length() * tier.length());
            }
        }
        for (int i = layout.measures() + layout.heads(); i < values.size(); i++) {
            if (values.getLong(i) != 0) {
                newest = Math.max(newest, time);
            }
        }
        return newest;
    }

    private static boolean touches(Layout.Tier tier, ArrayData values) {
        for (int slot : tier.slots()) {
            if (values.getLong(slot) != 0) {
                return true;
            }
        }
        return false;
    }

    /** Remove the chunks that hold nothing from {@code oldest} on. */
    private void expire(Layout.Tier tier, Kept kept, long oldest) throws Exception {
        while (chunks.first < Math.min(chunks.end, oldest >> CHUNK_BITS)) {
            kept.closed.remove(key(tier, chunks.first++));
        }
        if (chunks.first == chunks.end) {
            chunks.first = chunks.end = 0;
        }
    }

    /** The tiles of a chunk; null if there are none. */
    private byte[] held(Layout.Tier tier, Kept kept, long chunk) throws Exception {
        return chunk < chunks.first || chunk >= chunks.end ? null : kept.closed.get(key(tier, chunk));
    }

    private void hold(Layout.Tier tier, Kept kept, long chunk, byte[] tiles) throws Exception {
        kept.closed.put(key(tier, chunk), tiles);
        chunks.first = chunks.end == 0 ? chunk : Math.min(chunks.first, chunk);
        chunks.end = Math.max(chunks.end, chunk + 1);
    }

    private static long key(Layout.Tier tier, long chunk) {
        return ((long) tier.index() << 32) + chunk;
    }

    /** One tier's part of {@code recent}, with the event in it; what it touches is said. */
    private void advance(
            Layout.Tier tier, Kept kept, int start, int end, long oldest, long tile, ArrayData values)
            throws Exception {
        byte[] recent = kept.recent;
        int size = tier.size();
        int from = start;
        while (from < end && Bytes.u32(recent, from) < oldest) {
            from += size;
        }
        expire(tier, kept, oldest);
        int count = (end - from) / size;
        if (tile < oldest || !touches(tier, values)) {
            head(count).put(recent, from, end);
        } else if (from < end && tile < Bytes.u32(recent, from)) {
            count(tier, kept, tile, values);
            head(count).put(recent, from, end);
        } else {
            int where = end;
            while (where > from && Bytes.u32(recent, where - size) >= tile) {
                where -= size;
            }
            boolean there = where < end && Bytes.u32(recent, where) == tile;
            if (!there && count == RECENT_MAX) {
                int until = Math.min(from + RECENT_MAX / 2 * size, where);
                close(tier, kept, from, until);
                from = until;
                count = (end - from) / size;
            }
            head(there ? count : count + 1).put(recent, from, where);
            int record = after.length();
            add(tier, after, there ? recent : null, where, tile, values);
            after.put(recent, there ? where + size : where, end);
            say(tier, after.data(), record);
        }
    }

    private Bytes head(int count) {
        return after.u8(count).u32(chunks.first).u32(chunks.end);
    }

    /** Move the recent tiles of {@code [from, end)} to their chunks; all are newer than those there. */
    private void close(Layout.Tier tier, Kept kept, int from, int end) throws Exception {
        int at = from;
        while (at < end) {
            long chunk = Bytes.u32(kept.recent, at) >> CHUNK_BITS;
            int next = at;
            while (next < end && Bytes.u32(kept.recent, next) >> CHUNK_BITS == chunk) {
                next += tier.size();
            }
            byte[] held = held(tier, kept, chunk);
            moved.clear();
            if (held != null) {
                moved.put(held);
            }
            hold(tier, kept, chunk, moved.put(kept.recent, at, next).copy());
            at = next;
        }
    }

    /** Count a late event into a closed tile, or a new one among them. */
    private void count(Layout.Tier tier, Kept kept, long tile, ArrayData values) throws Exception {
        byte[] found = held(tier, kept, tile >> CHUNK_BITS);
        byte[] held = found == null ? new byte[0] : found;
        int at = 0;
        while (at < held.length && Bytes.u32(held, at) < tile) {
            at += tier.size();
        }
        boolean there = at < held.length && Bytes.u32(held, at) == tile;
        moved.clear();
        moved.put(held, 0, at);
        add(tier, moved, there ? held : null, at, tile, values);
        moved.put(held, there ? at + tier.size() : at, held.length);
        hold(tier, kept, tile >> CHUNK_BITS, moved.copy());
        say(tier, moved.data(), at);
    }

    /** Append the tile with the event in it; {@code old} holds it at {@code at}, or is null. */
    private static void add(Layout.Tier tier, Bytes to, byte[] old, int at, long tile, ArrayData values) {
        to.u32(tile);
        for (int i = 0; i < tier.slots().length; i++) {
            long had = old == null ? 0 : Bytes.u64(old, at + 4 + 8 * i);
            long delta = values.getLong(tier.slots()[i]);
            to.u64(tier.largest()[i] ? Math.max(had, delta) : sum(had, delta));
        }
    }

    /** A sum that would pass 2^64 stays below it: a slot never goes backwards. */
    private static long sum(long had, long delta) {
        long total = had + delta;
        return Long.compareUnsigned(total, had) < 0 ? -1 : total;
    }

    private void say(Layout.Tier tier, byte[] from, int at) {
        said.u8(tier.index()).put(from, at, at + tier.size());
    }
}
