package cordon;

import java.nio.charset.StandardCharsets;

/** Commands in Redis' protocol. */
final class Resp {
    private Resp() {}

    /** Append the head of a command of so many arguments. */
    static void command(Bytes to, int arguments) {
        length(to, '*', arguments);
    }

    /** Append an argument. */
    static void argument(Bytes to, byte[] value, int start, int end) {
        length(to, '$', end - start);
        to.put(value, start, end).u8('\r').u8('\n');
    }

    static void argument(Bytes to, byte[] value) {
        argument(to, value, 0, value.length);
    }

    static void argument(Bytes to, String value) {
        argument(to, bytes(value));
    }

    /** A whole command. */
    static Bytes whole(String... arguments) {
        Bytes to = new Bytes();
        command(to, arguments.length);
        for (String argument : arguments) {
            argument(to, argument);
        }
        return to;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void length(Bytes to, char kind, int value) {
        to.u8(kind).put(bytes(Integer.toString(value))).u8('\r').u8('\n');
    }
}
