package cordon;

import java.io.IOException;
import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.table.data.RowData;

/** Rows {@code (code, id, argument)} into the online store; on a checkpoint everything before it is there. */
final class StoreSink implements Sink<RowData> {
    private static final long serialVersionUID = 1L;
    private final Settings settings;

    StoreSink(Settings settings) {
        this.settings = settings;
    }

    @Override
    public SinkWriter<RowData> createWriter(WriterInitContext context) {
        return new Writer(settings, context.getMailboxExecutor());
    }

    private static final class Writer implements SinkWriter<RowData> {
        private final Feeder feeder;

        Writer(Settings settings, MailboxExecutor mailbox) {
            // The task fails at once, not at its next row.
            feeder = new Feeder(settings, () -> mailbox.execute(this::check, "the store was not fed"));
        }

        private void check() throws IOException {
            feeder.check();
        }

        @Override
        public void write(RowData row, Context context) throws IOException, InterruptedException {
            if (!row.isNullAt(2)) {
                feeder.add(row.getInt(0), row.getString(1).toString(), row.getBinary(2));
            }
        }

        @Override
        public void flush(boolean endOfInput) throws IOException, InterruptedException {
            feeder.flush();
        }

        @Override
        public void close() throws InterruptedException {
            feeder.close();
        }
    }
}
