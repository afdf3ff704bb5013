//! Memory for keys: pages of their own that are in no core file and not swapped out, and are wiped at the end.
//!
//! A process that holds keys is not dumpable as a whole (`sag_sandbox::protect_memory`); but root may still take an image of
//! it (`gcore`) for a report of a fault, and swap space outlives the process. Nothing of a [`Secret`] is in either. What lies
//! on the stack while a key is made is not covered.
//!
//! ```
//! use sag_secret::Secret;
//!
//! let key = Secret::new([7u8; 32]);
//! assert_eq!(key[0], 7);
//! ```

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use zeroize::Zeroize;

/// The smallest page of any processor that this runs on: what has no larger alignment is aligned in a mapping.
const PAGE: usize = 4096;

/// A value in pages of its own. What it points to is elsewhere, so it is for values without pointers, as keys are.
pub struct Secret<T> {
    at: NonNull<T>,
}

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: Send> Send for Secret<T> {}
// SAFETY: shared references give shared references to the value and nothing else.
unsafe impl<T: Sync> Sync for Secret<T> {}

impl<T> Secret<T> {
    /// Moves a value there. The caller's copy, if it is one, remains the caller's to wipe. Ends the process if there is no
    /// memory, as `Box` does.
    pub fn new(value: T) -> Secret<T> {
        const { assert!(align_of::<T>() <= PAGE && size_of::<T>() > 0) };
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address that the kernel chooses touches no other memory.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
        let at = NonNull::new(mapped.cast::<T>()).filter(|_| mapped != libc::MAP_FAILED);
        let Some(at) = at else { std::alloc::handle_alloc_error(Layout::new::<T>()) };
        // SAFETY: both are of the mapping just made and change nothing of its contents. Without them, on a kernel or by a
        // limit that refuses, the key is still wiped at the end.
        unsafe {
            libc::madvise(mapped, size_of::<T>(), libc::MADV_DONTDUMP);
            libc::mlock(mapped, size_of::<T>());
        }
        // SAFETY: the mapping is writable, large enough, and aligned to a page.
        unsafe { at.write(value) };
        Secret { at }
    }
}

impl<T> Deref for Secret<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` has written a value, which lives until `drop`.
        unsafe { self.at.as_ref() }
    }
}

impl<T> DerefMut for Secret<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { self.at.as_mut() }
    }
}

impl<T: Clone> Clone for Secret<T> {
    fn clone(&self) -> Secret<T> {
        Secret::new(T::clone(self))
    }
}

impl<T: PartialEq> PartialEq for Secret<T> {
    fn eq(&self, other: &Secret<T>) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Secret<T> {}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", size_of::<T>())
    }
}

impl<T> Drop for Secret<T> {
    fn drop(&mut self) {
        // SAFETY: the value is dropped once; afterwards its bytes are written, which need not be initialised for that, and
        // the mapping of `new` is removed. Nothing refers to it any more.
        unsafe {
            self.at.drop_in_place();
            std::slice::from_raw_parts_mut(
                self.at.cast::<std::mem::MaybeUninit<u8>>().as_ptr(),
                size_of::<T>(),
            )
            .zeroize();
            libc::munmap(self.at.as_ptr().cast(), size_of::<T>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// The `VmFlags` of the mapping that an address is in.
    fn flags_of(address: usize) -> Vec<String> {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in text.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let number = |hex: &str| usize::from_str_radix(hex, 16).ok();
            if let Some((from, to)) = range.and_then(|(from, to)| Some((number(from)?, number(to)?))) {
                inside = (from..to).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        panic!("no mapping of {address:#x}");
    }

    #[test]
    fn it_is_in_no_core_file_and_not_swapped_out() {
        let (secret, plain) = (Secret::new([7u8; 32]), Box::new([7u8; 32]));
        let flags = flags_of(ptr::from_ref(&*secret) as usize);
        assert!(flags.iter().any(|f| f == "dd"), "{flags:?}");
        assert!(flags.iter().any(|f| f == "lo"), "{flags:?}");
        assert!(!flags_of(ptr::from_ref(&*plain) as usize).iter().any(|f| f == "dd"));
        assert_eq!(*secret, *plain);
    }

    #[test]
    fn many_are_few_mappings() {
        let count = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        let before = count();
        let all: Vec<Secret<u64>> = (0..2000).map(Secret::new).collect();
        // The kernel joins neighbors of one kind; their number is limited (vm.max_map_count).
        assert!(count() < before + 100, "{} after {before}", count());
        assert!(all.iter().enumerate().all(|(n, s)| **s == n as u64));
    }

    #[test]
    fn values_are_dropped_once() {
        struct Counts<'a>(&'a Cell<u32>);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        drop(Secret::new(Counts(&dropped)));
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn it_is_not_shown() {
        let mut secret = Secret::new([7u8; 3]);
        secret[0] = 9;
        assert_eq!(format!("{secret:?}"), "Secret(3 bytes)");
        assert!(secret.clone() == secret && *secret == [9, 7, 7]);
    }
}
