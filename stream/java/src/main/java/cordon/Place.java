package cordon;

import java.io.Serializable;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.util.ArrayList;
import java.util.List;

/** Where the store is: one server, or a cluster that {@code seeds} belong to. Empty strings: none. */
record Place(List<Node> seeds, boolean cluster, String username, String password, int database)
        implements Serializable {

    /** One server; {@code path} of a unix socket, empty for TCP. */
    record Node(String host, int port, String path) implements Serializable {
        SocketAddress address() {
            return path.isEmpty() ? new InetSocketAddress(host, port) : UnixDomainSocketAddress.of(path);
        }

        @Override
        public String toString() {
            return path.isEmpty() ? host + ":" + port : path;
        }
    }

    /** Nodes of {@code host:port,host:port} or {@code /path}. */
    static List<Node> nodes(String text) {
        List<Node> found = new ArrayList<>();
        if (text.startsWith("/")) {
            found.add(new Node("", 0, text));
            return found;
        }
        for (String one : text.split(",")) {
            int colon = one.lastIndexOf(':');
            found.add(new Node(one.substring(0, colon), Integer.parseInt(one.substring(colon + 1)), ""));
        }
        return found;
    }
}
