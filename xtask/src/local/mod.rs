//! The local server: the image in a sandbox of this machine.
