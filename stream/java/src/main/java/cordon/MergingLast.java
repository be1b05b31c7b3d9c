package cordon;

import java.util.Collection;
import org.apache.flink.state.rocksdb.RocksDBOptionsFactory;
import org.rocksdb.ColumnFamilyOptions;
import org.rocksdb.DBOptions;
import org.rocksdb.Env;
import org.rocksdb.Priority;

/**
 * RocksDB's threads that merge files yield to all others of their task manager (niceness 19): merging follows each
 * checkpoint, when the job has a backlog. Writing out what is full stays as it is, since the job waits for it.
 *
 * <p>Named by {@code state.backend.rocksdb.options-factory}; Flink has no words for it.
 */
public final class MergingLast implements RocksDBOptionsFactory {
    private static final long serialVersionUID = 1L;

    @Override
    public DBOptions createDBOptions(DBOptions current, Collection<AutoCloseable> handles) {
        Env.getDefault().lowerThreadPoolCPUPriority(Priority.LOW);
        return current;
    }

    @Override
    public ColumnFamilyOptions createColumnOptions(ColumnFamilyOptions current, Collection<AutoCloseable> handles) {
        return current;
    }
}
