//! How a testbed tells what it does.

/// Who listens to what the testbed does.
pub trait Progress: Send + Sync {
    /// A step begins: a verb and its object, as cargo prints them.
    fn step(&self, verb: &str, what: &str);
    /// So many things are to be done. The function is called with how many more are done.
    fn count(&self, label: &str, total: u64) -> Box<dyn Fn(u64) + Send>;
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _verb: &str, _what: &str) {}

    fn count(&self, _label: &str, _total: u64) -> Box<dyn Fn(u64) + Send> {
        Box::new(|_| ())
    }
}
