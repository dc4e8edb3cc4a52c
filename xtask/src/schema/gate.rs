//! What holds a server's pod back until its databases have the schema that its MLflow works with.

/// The init container that does.
pub const CONTAINER: &str = "schema-gate";

/// What it runs: `python -c PROGRAM`. As text, so that an image need not have it.
pub const PROGRAM: &str = include_str!("gate.py");

/// How it begins to say that it waits, and what for.
pub const WAITS: &str = "schema gate: the ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_reaches_python_as_it_is() {
        // Kubernetes puts variables in for `$(NAME)` in a command, and makes one of two dollar signs.
        assert!(!PROGRAM.contains("$(") && !PROGRAM.contains("$$"));
        assert!(PROGRAM.contains(&format!("f\"{WAITS}{{name}} database")), "WAITS");
    }
}
