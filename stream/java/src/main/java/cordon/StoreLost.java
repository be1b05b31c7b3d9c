package cordon;

import java.io.IOException;

/** The store was away for longer than the patience: fail, and start again from a checkpoint. */
final class StoreLost extends IOException {
    private static final long serialVersionUID = 1L;

    StoreLost(String message) {
        super(message);
    }
}
