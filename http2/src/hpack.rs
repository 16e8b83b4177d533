//! Compression of header fields (RFC 7541).
