//! The real sides: the machine itself.
