//! Points at which a test has the process end, to see what the next one finds. They are there in
//! builds with debug assertions alone.

/// Ends the process if `TRUNKLINE_FAULT` names this point.
#[inline]
pub fn point(name: &str) {
    #[cfg(all(debug_assertions, not(loom)))]
    {
        static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let wanted = WANTED.get_or_init(|| std::env::var("TRUNKLINE_FAULT").ok());
        if wanted.as_deref() == Some(name) {
            std::process::abort();
        }
    }
    let _ = name;
}
