//! Places at which a test may end the process: `SAG_AGENT_CRASH_AT=<step>`. Builds without debug
//! assertions and without the feature `crash-points` do not have them.

const STEPS: &[&str] = &[
    "pulled",
    "compiled",
    "before-apply",
    "after-apply",
    "after-addresses",
    "during-save",
    "after-save",
    "before-report",
    "after-report",
];

const ENABLED: bool = cfg!(any(debug_assertions, feature = "crash-points"));

pub fn steps() -> &'static [&'static str] {
    if ENABLED { STEPS } else { &[] }
}

/// Ends the process without a word to anyone if the environment names this step.
pub fn point(step: &str) {
    debug_assert!(STEPS.contains(&step));
    if ENABLED && std::env::var_os("SAG_AGENT_CRASH_AT").is_some_and(|at| at == step) {
        eprintln!("sag-agent: crash point {step}");
        std::process::abort();
    }
}
