package cordon;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.net.StandardProtocolFamily;
import java.net.StandardSocketOptions;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** One connection to a server; every call waits for at most the answer time. Throws StoreBusy when it breaks. */
final class Connection implements AutoCloseable {
    private static final String[] RETRY = {
        "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "OOM", "BUSY", "ASK", "MOVED"
    };
    private static final String NO_FUNCTION = "ERR Function not found";
    private final SocketChannel channel;
    private final Selector selector;
    private final SelectionKey key;
    private final long answerMs;
    private final ByteBuffer in = ByteBuffer.allocate(1 << 16).flip();

    Connection(Place place, Place.Node node, long answerMs) throws StoreBusy, StoreRefused {
        this.answerMs = answerMs;
        SocketChannel opened = null;
        try {
            opened = node.path().isEmpty() ? SocketChannel.open() : SocketChannel.open(StandardProtocolFamily.UNIX);
            opened.configureBlocking(false);
            channel = opened;
            selector = Selector.open();
            key = channel.register(selector, SelectionKey.OP_CONNECT);
            if (!channel.connect(node.address())) {
                await(SelectionKey.OP_CONNECT);
                channel.finishConnect();
            }
            if (node.path().isEmpty()) {
                channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            }
        } catch (IOException | RuntimeException error) {
            quietly(opened);
            throw new StoreBusy(node + ": " + error);
        }
        if (!place.password().isEmpty()) {
            ask(place.username().isEmpty()
                    ? new String[] {"AUTH", place.password()}
                    : new String[] {"AUTH", place.username(), place.password()});
        }
        if (place.database() != 0) {
            ask("SELECT", Integer.toString(place.database()));
        }
    }

    /** Write a block of commands. */
    void send(Bytes block) throws StoreBusy {
        ByteBuffer out = ByteBuffer.wrap(block.data(), 0, block.length());
        try {
            while (channel.write(out) >= 0 && out.hasRemaining()) {
                await(SelectionKey.OP_WRITE);
            }
        } catch (IOException error) {
            throw new StoreBusy(error.toString());
        }
    }

    /** Wait for so many integer replies; throws what the first error among them means. */
    void settle(int count) throws StoreBusy, StoreRefused {
        String failed = null;
        for (int i = 0; i < count; i++) {
            String reply = line();
            if (!reply.startsWith(":") && failed == null) {
                failed = reply;
            }
        }
        if (failed != null) {
            fail(failed);
        }
    }

    /** One command and its reply: a String, a Long, a List of replies, or null. */
    Object ask(String... arguments) throws StoreBusy, StoreRefused {
        send(Resp.whole(arguments));
        return reply();
    }

    private Object reply() throws StoreBusy, StoreRefused {
        String line = line();
        String rest = line.substring(1);
        switch (line.charAt(0)) {
            case '+':
                return rest;
            case ':':
                return Long.parseLong(rest);
            case '*':
                List<Object> all = new ArrayList<>();
                for (int left = Integer.parseInt(rest); left > 0; left--) {
                    all.add(reply());
                }
                return all;
            case '$':
                int length = Integer.parseInt(rest);
                return length < 0 ? null : text(length);
            default:
                fail(line);
                return null;
        }
    }

    private String line() throws StoreBusy {
        ByteArrayOutputStream found = new ByteArrayOutputStream(32);
        for (byte next = next(); next != '\r'; next = next()) {
            found.write(next);
        }
        next();
        String line = found.toString(StandardCharsets.UTF_8);
        if (line.isEmpty()) {
            throw new StoreBusy("an empty reply");
        }
        return line;
    }

    private String text(int length) throws StoreBusy {
        byte[] found = new byte[length];
        for (int i = 0; i < length; i++) {
            found[i] = next();
        }
        next();
        next();
        return new String(found, StandardCharsets.UTF_8);
    }

    private byte next() throws StoreBusy {
        try {
            while (!in.hasRemaining()) {
                in.clear();
                int count = channel.read(in);
                in.flip();
                if (count < 0) {
                    throw new StoreBusy("connection closed");
                }
                if (count == 0) {
                    await(SelectionKey.OP_READ);
                }
            }
        } catch (IOException error) {
            throw new StoreBusy(error.toString());
        }
        return in.get();
    }

    private void await(int operation) throws IOException {
        key.interestOps(operation);
        if (selector.select(answerMs) == 0) {
            throw new IOException(Thread.currentThread().isInterrupted() ? "interrupted" : "timed out");
        }
        selector.selectedKeys().clear();
    }

    private static void fail(String line) throws StoreBusy, StoreRefused {
        String message = line.startsWith("-") ? line.substring(1) : line;
        if (message.startsWith(NO_FUNCTION)) {
            throw new StoreBusy.FunctionMissing(message);
        }
        for (String prefix : RETRY) {
            if (message.startsWith(prefix)) {
                throw new StoreBusy(message);
            }
        }
        throw new StoreRefused(message);
    }

    @Override
    public void close() {
        quietly(selector);
        quietly(channel);
    }

    private static void quietly(java.io.Closeable open) {
        try {
            if (open != null) {
                open.close();
            }
        } catch (IOException error) {
            // It is gone either way.
        }
    }
}
