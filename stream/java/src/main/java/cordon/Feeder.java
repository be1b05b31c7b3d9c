package cordon;

import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * Absolute values into the online store, then how far they reach.
 *
 * <p>Rows gather for {@code lingerMs}, or as long as the batch before them takes, at most {@code batchRowsMax};
 * then {@link #add} waits. A thread of its own sends a batch's merge calls, waits for every answer, and only then
 * publishes the positions that came with the batch. Rows come in the order in which the grouping emitted them,
 * and an event's position behind its other rows: a published position never runs ahead of the state.
 *
 * <p>Nothing is lost in a crash: Flink repeats from its checkpoint, before which {@link #flush} was called, and
 * merging takes the maximum.
 */
final class Feeder implements AutoCloseable {
    private static final String WATERMARK = resource("watermark.lua");
    private final Settings settings;
    private final Link link;
    private final Runnable whenFailed;
    private final Thread thread;
    private Batch batch;
    private long since;
    private boolean hurried;
    private boolean writing;
    private boolean closed;
    private IOException failure;
    private String laneSeen;

    /** {@code whenFailed} is called by the feeder's thread when {@link #check} has something to throw. */
    Feeder(Settings settings, Runnable whenFailed) {
        this.settings = settings;
        this.whenFailed = whenFailed;
        link = new Link(settings);
        batch = new Batch(settings);
        thread = new Thread(this::run, "cordon-feeder");
        thread.setDaemon(true);
        thread.start();
    }

    /** Take a row; blocks while the batch is full. */
    synchronized void add(int code, String id, byte[] argument) throws IOException, InterruptedException {
        check();
        while (batch.rows() >= settings.batchRowsMax()) {
            wait();
            check();
        }
        if (batch.rows() == 0) {
            since = System.nanoTime();
            notifyAll();
        }
        batch.add(code, id, argument);
        if (batch.rows() >= settings.batchRowsMax()) {
            notifyAll();
        }
    }

    /** Returns when the store has answered everything. */
    synchronized void flush() throws IOException, InterruptedException {
        hurried = true;
        notifyAll();
        while (failure == null && (writing || batch.rows() > 0)) {
            wait();
        }
        hurried = false;
        check();
    }

    /** Throws why the store could not be fed: StoreLost, StoreRefused, LanesCrossed. */
    synchronized void check() throws IOException {
        if (failure != null) {
            throw failure;
        }
    }

    private void run() {
        try {
            for (Batch next = take(); next != null; next = take()) {
                write(next);
                done();
            }
        } catch (IOException error) {
            fail(error);
        } catch (InterruptedException error) {
            fail(new StoreLost("closed while it was written to"));
        } catch (RuntimeException error) {
            fail(new IOException("the feeder stopped: " + error, error));
        } finally {
            link.close();
        }
    }

    /** The next batch when it is due; null when the feeder is closed. */
    private synchronized Batch take() throws InterruptedException {
        while (!closed && batch.rows() == 0) {
            wait();
        }
        long dueIn = since + settings.lingerMs() * 1_000_000 - System.nanoTime();
        while (!closed && !hurried && dueIn > 0 && batch.rows() < settings.batchRowsMax()) {
            wait(dueIn / 1_000_000, (int) (dueIn % 1_000_000));
            dueIn = since + settings.lingerMs() * 1_000_000 - System.nanoTime();
        }
        if (closed) {
            return null;
        }
        Batch taken = batch;
        batch = new Batch(settings);
        writing = true;
        notifyAll();
        return taken;
    }

    private synchronized void done() {
        writing = false;
        notifyAll();
    }

    private void fail(IOException error) {
        boolean wanted;
        synchronized (this) {
            failure = error;
            wanted = !closed;
            notifyAll();
        }
        if (wanted) {
            whenFailed.run();
        }
    }

    private void write(Batch taken) throws IOException, InterruptedException {
        if (taken.hasEntities()) {
            link.settle(to -> taken.write(link, to));
        }
        List<Batch.Position> positions = taken.positions();
        if (!positions.isEmpty()) {
            Bytes command = publication(positions);
            int slot = Link.slot(Resp.bytes(settings.watermark()));
            link.settle(to -> {
                Link.Block block = new Link.Block();
                block.commands.put(command.data(), 0, command.length());
                block.count = 1;
                to.put(link.owner(slot), block);
            });
        }
    }

    private Bytes publication(List<Batch.Position> positions) throws LanesCrossed {
        List<String> words = new ArrayList<>(List.of(
                "EVAL", WATERMARK, "2", settings.watermark(), settings.lanesKey(), settings.generation(),
                Long.toString(System.currentTimeMillis()), Integer.toString(settings.lanes().size())));
        for (Batch.Position position : positions) {
            if (laneSeen != null && !laneSeen.equals(position.lane())) {
                throw new LanesCrossed("subtask of lane " + laneSeen + " got a position of lane " + position.lane());
            }
            laneSeen = position.lane();
            words.add(position.topic() + ":" + position.partition());
            words.add(Integer.toString(settings.lanes().indexOf(position.lane())));
            words.add(Long.toString(position.offset()));
            words.add(Long.toString(position.time()));
        }
        return Resp.whole(words.toArray(String[]::new));
    }

    /** Give up what was not flushed. */
    @Override
    public void close() throws InterruptedException {
        synchronized (this) {
            closed = true;
            notifyAll();
        }
        thread.interrupt();
        thread.join(settings.answerMs());
    }

    private static String resource(String name) {
        try (InputStream in = Feeder.class.getResourceAsStream(name)) {
            return new String(in.readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }
}
