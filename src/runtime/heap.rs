use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// The alignment that every allocation of mimalloc has which is no smaller than
/// that, in bytes (`MI_MAX_ALIGN_SIZE`), as C asks of `malloc`.
const NATURAL: usize = 16;

/// The process's allocator: mimalloc, asked plainly for whatever is aligned in any
/// case.
///
/// Asked for an alignment, mimalloc 3.3 takes room to align in for all sizes but
/// powers of two, be it for 8 bytes (`mi_malloc_is_naturally_aligned`): 96 bytes
/// came to 112, 384 to 448. The crate `mimalloc` always asks.
#[derive(Debug)]
pub struct Heap;

/// Whether a block of `size` bytes is aligned to `align` in any case.
fn is_natural(align: usize, size: usize) -> bool {
    align <= NATURAL && align <= size
}

// SAFETY: mimalloc's functions keep what `GlobalAlloc` asks for, do not unwind, and
// take each other's blocks. What is asked for plainly is aligned to `NATURAL`, or
// is smaller and aligned to its size, rounded up to a power of two.
#[allow(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.align(), layout.size()) {
            unsafe { libmimalloc_sys::mi_malloc(layout.size()).cast() }
        } else {
            unsafe { MiMalloc.alloc(layout) }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_natural(layout.align(), layout.size()) {
            unsafe { libmimalloc_sys::mi_zalloc(layout.size()).cast() }
        } else {
            unsafe { MiMalloc.alloc_zeroed(layout) }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_natural(layout.align(), size) {
            unsafe { libmimalloc_sys::mi_realloc(block.cast(), size).cast() }
        } else {
            unsafe { MiMalloc.realloc(block, layout, size) }
        }
    }
}

/// Gives the free memory of this thread's heap back to the operating system.
///
/// mimalloc does so by itself only when the thread next allocates, so a server
/// that has become idle would keep what it no longer uses. Huge pages are off
/// (`no_thp` in Cargo.toml), because one allocation that lives on would keep two
/// megabytes: after 10,000 chats were let go, 3.7 MB stay of 30; with huge pages
/// 15 to 24 of 55, and without this call 33 to 54. Costs up to some milliseconds,
/// in proportion to the heap; does nothing for a process with another allocator.
pub fn trim_heap() {
    // SAFETY: `mi_collect` has no preconditions and may be called at any time, on
    // any thread; it touches the calling thread's own heap and free pages.
    #[allow(unsafe_code, reason = "no safe interface to it")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_keep_what_they_hold() {
        let sizes = (0..64).chain([96, 160, 384, 1_000, 4_096, 5_000, 70_000]);
        for (size, shift) in sizes.flat_map(|size| (0..8).map(move |shift| (size, shift))) {
            let layout = Layout::from_size_align(size.max(1), 1 << shift).unwrap();
            let aligned = |block: *mut u8| {
                assert!(
                    !block.is_null() && block.addr().is_multiple_of(layout.align()),
                    "{layout:?}"
                );
            };
            // SAFETY: the sizes are not 0, each block is given back once, with its
            // layout, and nothing outside of it is touched.
            #[allow(unsafe_code, reason = "what is tested")]
            unsafe {
                // Several, since neighbours in a page differ in their alignment.
                let blocks = [(); 9].map(|()| Heap.alloc_zeroed(layout));
                for block in blocks {
                    aligned(block);
                    let bytes = std::slice::from_raw_parts_mut(block, layout.size());
                    assert!(bytes.iter().all(|byte| *byte == 0), "{layout:?}");
                    bytes.fill(7);
                }
                for block in blocks {
                    let block = Heap.realloc(block, layout, 2 * layout.size());
                    aligned(block);
                    let bytes = std::slice::from_raw_parts(block, layout.size());
                    assert!(bytes.iter().all(|byte| *byte == 7), "{layout:?}");
                    let larger = Layout::from_size_align(2 * layout.size(), layout.align());
                    Heap.dealloc(block, larger.unwrap());
                }
                let block = Heap.alloc(layout);
                aligned(block);
                Heap.dealloc(block, layout);
            }
        }
    }
}
