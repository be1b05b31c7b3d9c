package cordon;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.Arrays;

/** A growing run of little-endian numbers; used again and again, so that rows cost no garbage. */
final class Bytes {
    private static final VarHandle INT = view(int[].class);
    private static final VarHandle LONG = view(long[].class);
    private byte[] data = new byte[1024];
    private int length;

    private static VarHandle view(Class<?> of) {
        return MethodHandles.byteArrayViewVarHandle(of, ByteOrder.LITTLE_ENDIAN);
    }

    static long u32(byte[] from, int at) {
        return (int) INT.get(from, at) & 0xFFFFFFFFL;
    }

    static long u64(byte[] from, int at) {
        return (long) LONG.get(from, at);
    }

    static void putLong(byte[] to, int at, long value) {
        LONG.set(to, at, value);
    }

    byte[] data() {
        return data;
    }

    int length() {
        return length;
    }

    void clear() {
        length = 0;
    }

    Bytes u8(int value) {
        reserve(1);
        data[length++] = (byte) value;
        return this;
    }

    Bytes u32(long value) {
        reserve(4);
        INT.set(data, length, (int) value);
        length += 4;
        return this;
    }

    Bytes u64(long value) {
        reserve(8);
        LONG.set(data, length, value);
        length += 8;
        return this;
    }

    Bytes put(byte[] from, int start, int end) {
        reserve(end - start);
        System.arraycopy(from, start, data, length, end - start);
        length += end - start;
        return this;
    }

    Bytes put(byte[] from) {
        return put(from, 0, from.length);
    }

    byte[] copy() {
        return Arrays.copyOf(data, length);
    }

    private void reserve(int more) {
        if (length + more > data.length) {
            data = Arrays.copyOf(data, Math.max(2 * data.length, length + more));
        }
    }
}
