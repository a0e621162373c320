//! What `coreway version` prints. Spec static-config 2.
//!
//! Owns the version and the code name. Read next: `help.rs`.

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Name of the release line.
pub const CODENAME: &str = "aqueduct";

/// Five lines in columns as Traefik prints them; the compiler takes the place of Go. A packager tells the compiler and
/// the date through `COREWAY_RUSTC` and `COREWAY_BUILT` when building.
pub fn text() -> String {
    let rust = option_env!("COREWAY_RUSTC")
        .unwrap_or(concat!(env!("CARGO_PKG_RUST_VERSION"), " or newer"));
    let built = option_env!("COREWAY_BUILT").unwrap_or("unknown");
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let rows = [
        ("Version:", VERSION.to_owned()),
        ("Codename:", CODENAME.to_owned()),
        ("Rust version:", rust.to_owned()),
        ("Built:", built.to_owned()),
        ("OS/Arch:", format!("{}/{arch}", std::env::consts::OS)),
    ];
    rows.iter()
        .map(|(name, value)| format!("{name:<14}{value}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn five_lines_with_values_in_one_column() {
        let text = super::text();
        assert_eq!(text.lines().count(), 5);
        assert!(text.starts_with(&format!(
            "Version:      {}\nCodename:     ",
            env!("CARGO_PKG_VERSION")
        )));
        assert!(
            text.lines()
                .all(|line| line.find(": ").is_some_and(|at| at < 13) && line.len() > 14),
            "{text}"
        );
    }
}
