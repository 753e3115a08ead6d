//! The heap: what a large batch freed goes back to the kernel, so that an idle agent is small.

/// Gives free memory back.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, and is safe to call from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
