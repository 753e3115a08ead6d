//! One patch: zstd with a range of the base as its raw prefix.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ErrorCode, SafeResult, compress_bound, get_error_name};

const LEVEL: i32 = 1;
/// Largest match table, as a power of two of 4-byte entries: what fits a core's own cache.
const HASH_LOG_MAX: u32 = 16;

/// Compresses segments against ranges of the base `'b`; keeps its tables from one to the next.
pub(super) struct Patcher<'b> {
    context: CCtx<'b>,
    packed: Vec<u8>,
}

impl<'b> Patcher<'b> {
    pub(super) fn new() -> Self {
        Self { context: CCtx::create(), packed: Vec::new() }
    }

    /// `new` compressed behind `prefix`; `None` where zstd fails, which only lack of memory can make it do.
    pub(super) fn patch(&mut self, prefix: &'b [u8], new: &[u8]) -> Option<&[u8]> {
        self.packed.resize(compress_bound(new.len()), 0);
        let len = self.compress(prefix, new).ok()?;
        self.packed.get(..len)
    }

    fn compress(&mut self, prefix: &'b [u8], new: &[u8]) -> SafeResult {
        let span = (prefix.len() + new.len()).max(2).ilog2() + 1;
        let context = &mut self.context;
        context.set_parameter(CParameter::CompressionLevel(LEVEL))?;
        context.set_parameter(CParameter::WindowLog(span.max(10)))?;
        context.set_parameter(CParameter::HashLog(span.clamp(10, HASH_LOG_MAX)))?;
        context.set_parameter(CParameter::ContentSizeFlag(false))?;
        context.ref_prefix(prefix)?;
        context.compress2(&mut self.packed[..], new)
    }
}

/// Makes segments of patches; holds the last one.
#[derive(Default)]
pub(super) struct Unpatcher {
    made: Vec<u8>,
}

impl Unpatcher {
    /// The `size` bytes that `data` and `prefix` make, or why they do not. The output's buffer is the window, so
    /// no window that a peer names is ever allocated.
    pub(super) fn unpatch(&mut self, prefix: &[u8], data: &[u8], size: usize) -> Result<&[u8], &'static str> {
        self.made.resize(size, 0);
        // The context borrows the prefix, so it lasts for one patch.
        let mut context = DCtx::try_create().ok_or("no memory for zstd")?;
        let got = expand(&mut context, prefix, data, &mut self.made).map_err(get_error_name)?;
        if got == size { Ok(&self.made) } else { Err("it is shorter") }
    }
}

fn expand<'a>(
    context: &mut DCtx<'a>,
    prefix: &'a [u8],
    data: &[u8],
    made: &mut [u8],
) -> Result<usize, ErrorCode> {
    context.ref_prefix(prefix)?;
    context.decompress(made, data)
}
