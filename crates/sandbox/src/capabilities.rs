//! Capabilities, of the calling thread and of all that it starts.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// Gives up every capability that is not in `keep`: effective, permitted, ambient and bounding set. What it runs cannot gain
/// any either. Returns those that are left.
pub fn keep_only(keep: CapabilitySet) -> io::Result<CapabilitySet> {
    set_no_new_privs(true)?;
    let have = capabilities(None)?;
    let left = have.permitted & keep;
    for one in CapabilitySet::all().difference(keep).iter() {
        // Lowering one that is not there is no error; old kernels do not know the newest ones.
        let _ = configure_capability_in_ambient_set(one, false);
        // Without CAP_SETPCAP the bounding set stays. With no new privileges nothing is gained by it.
        if capability_is_in_bounding_set(one) == Ok(true) {
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    let inheritable = have.inheritable & keep;
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable })?;
    Ok(left)
}

/// For the log.
pub fn names(set: CapabilitySet) -> String {
    if set.is_empty() {
        return "none".to_owned();
    }
    let words: Vec<String> = set.iter_names().map(|(name, _)| name.to_lowercase()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_what_it_needs_and_passes_no_more_on() {
        let keep = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        let (before, after, inherited) = std::thread::spawn(move || {
            let before = capabilities(None).unwrap().permitted;
            keep_only(keep).unwrap();
            let of_child = std::thread::spawn(|| capabilities(None).unwrap()).join().unwrap();
            (before, capabilities(None).unwrap(), of_child)
        })
        .join()
        .unwrap();
        assert_eq!((after.permitted, after.effective), (before & keep, before & keep));
        assert_eq!(inherited, after);
        assert_eq!(names(keep), "net_admin net_raw");
        assert_eq!(names(CapabilitySet::empty()), "none");
    }
}
