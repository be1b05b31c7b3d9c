package cordon;

/** The store cannot answer now: nothing is known about the block, connect and send it again. */
class StoreBusy extends Exception {
    private static final long serialVersionUID = 1L;

    StoreBusy(String message) {
        super(message);
    }

    /** The server lost its function library: load it and send again. */
    static final class FunctionMissing extends StoreBusy {
        private static final long serialVersionUID = 1L;

        FunctionMissing(String message) {
            super(message);
        }
    }
}
