"""HTTP/2: connections and streams, within bounds."""
