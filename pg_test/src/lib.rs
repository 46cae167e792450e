//! Harness for tests with real servers.
