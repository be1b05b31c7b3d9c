package cordon;

import java.io.IOException;

/** The store refused a command for a reason that a retry does not change: a bug or a wrong configuration. */
final class StoreRefused extends IOException {
    private static final long serialVersionUID = 1L;

    StoreRefused(String message) {
        super(message);
    }
}
