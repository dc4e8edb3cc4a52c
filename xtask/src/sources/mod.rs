//! Where wheels and Debian packages come from.
