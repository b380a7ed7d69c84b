//! The simulator's heap: what was freed last is taken first.
//!
//! A run is one thread that mostly makes and drops small things, and it waits for memory
//! more than it computes. General allocators hand out the blocks of a page in turn, so that
//! what is made now lies where the cache has not been for long. Here each thread has a
//! list for each size, whose head is still warm; what is larger is mimalloc's.
//!
//! What must hold: a block is in one list or has one owner. It is put into the list of the
//! thread that frees it, whoever took it. Nothing is given back: a process has as much as it
//! had at most of each size, and what is in the lists of a thread when it ends is lost.

#![expect(unsafe_code, reason = "memory is handed out by raw pointers")]

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::ptr::{self, null_mut};

/// Sizes up to here are of lists; what is larger is mimalloc's.
const SMALL_MAX: usize = 1 << 13;
/// Blocks are aligned to this, and sizes up to `FINE_MAX` are multiples of it.
const GRAIN: usize = 16;
const FINE_MAX: usize = 1 << 10;
/// Beyond these each doubling has four sizes.
const FINE: usize = FINE_MAX / GRAIN;
const LISTS: usize = FINE + 4 * (SMALL_MAX / FINE_MAX).ilog2() as usize;
/// Taken from mimalloc at once.
const CHUNK: usize = 1 << 20;

/// Of mimalloc's options: after how many milliseconds the system gets back what is free.
const PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// From now on the system gets nothing back before the process ends. It would fill with zeros
/// whatever is taken anew, again and again: files of simulated disks come and go all the time.
pub fn keep() {
    // SAFETY: mimalloc, which is linked, has this function and this option.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}

/// See the module.
pub struct Heap;

/// Of one thread.
struct Lists {
    /// Heads, by [`list_of`].
    free: [Cell<*mut Free>; LISTS],
    /// What is left of the last chunk: where, and how much.
    rest: Cell<*mut u8>,
    left: Cell<usize>,
}

/// What a block holds while it is in a list.
struct Free {
    next: *mut Free,
}

thread_local! {
    static LISTS_OF_THREAD: Lists = const {
        Lists { free: [const { Cell::new(null_mut()) }; LISTS], rest: Cell::new(null_mut()), left: Cell::new(0) }
    };
}

/// The list for a size; see [`bytes_of`].
#[inline]
fn list_of(size: usize) -> usize {
    if size <= FINE_MAX {
        return size.saturating_sub(1) / GRAIN;
    }
    let doubling = (size - 1).ilog2() as usize;
    let quarter = (size - 1) >> (doubling - 2) & 3;
    FINE + (doubling - FINE_MAX.ilog2() as usize) * 4 + quarter
}

/// How much the blocks of a list hold.
fn bytes_of(list: usize) -> usize {
    if list < FINE {
        return (list + 1) * GRAIN;
    }
    let (doubling, quarter) = ((list - FINE) / 4, (list - FINE) % 4);
    (FINE_MAX << doubling) / 4 * (5 + quarter)
}

#[inline]
fn is_small(layout: Layout) -> bool {
    layout.size() <= SMALL_MAX && layout.align() <= GRAIN
}

impl Lists {
    /// A block that nobody had.
    #[cold]
    #[inline(never)]
    fn carve(&self, list: usize) -> *mut u8 {
        let bytes = bytes_of(list);
        if self.left.get() < bytes {
            let layout = Layout::from_size_align(CHUNK, 4096).expect("a valid layout");
            // SAFETY: the layout has a size.
            let chunk = unsafe { MiMalloc.alloc(layout) };
            if chunk.is_null() {
                return null_mut();
            }
            self.rest.set(chunk);
            self.left.set(CHUNK);
        }
        let block = self.rest.get();
        self.rest.set(block.wrapping_add(bytes));
        self.left.set(self.left.get() - bytes);
        block
    }

    #[inline]
    fn take(&self, list: usize) -> *mut u8 {
        let head = self.free[list].get();
        if head.is_null() {
            return self.carve(list);
        }
        // SAFETY: what is in a list was freed, and nobody else has it.
        self.free[list].set(unsafe { (*head).next });
        head.cast()
    }

    #[inline]
    fn put(&self, list: usize, block: *mut u8) {
        let block: *mut Free = block.cast();
        // SAFETY: the block is of this size, aligned, and was given back.
        unsafe { (*block).next = self.free[list].get() };
        self.free[list].set(block);
    }
}

// SAFETY: a block is in one list or with one owner; lists are of one thread each.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            return LISTS_OF_THREAD.with(|lists| lists.take(list_of(layout.size())));
        }
        // SAFETY: the caller's promises are passed on, here and below.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            // SAFETY: a block holds what its layout says.
            let block = unsafe { self.alloc(layout) };
            if !block.is_null() {
                // SAFETY: as above.
                unsafe { ptr::write_bytes(block, 0, layout.size()) };
            }
            return block;
        }
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_small(layout) {
            return LISTS_OF_THREAD.with(|lists| lists.put(list_of(layout.size()), block));
        }
        unsafe { MiMalloc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that this is a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (is_small(layout), is_small(wanted)) {
            (false, false) => return unsafe { MiMalloc.realloc(block, layout, new_size) },
            (true, true) if list_of(layout.size()) == list_of(new_size) => return block,
            _ => {}
        }
        // SAFETY: both blocks hold as much as is copied, and the old one is the caller's.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_list_whose_blocks_just_hold_it() {
        for size in 1..=SMALL_MAX {
            let list = list_of(size);
            assert!(bytes_of(list) >= size, "{size}");
            assert!(list == 0 || bytes_of(list - 1) < size, "{size}");
        }
        assert_eq!(list_of(SMALL_MAX), LISTS - 1);
    }

    /// A block filled with a byte.
    fn filled(layout: Layout, byte: u8) -> *mut u8 {
        // SAFETY: the layout has a size, and the block holds as much.
        unsafe {
            let block = Heap.alloc(layout);
            assert_eq!(block as usize % layout.align(), 0);
            block.write_bytes(byte, layout.size());
            block
        }
    }

    fn holds(block: *const u8, len: usize, byte: u8) -> bool {
        // SAFETY: only asked of blocks that are held and were written.
        unsafe { std::slice::from_raw_parts(block, len) }.iter().all(|held| *held == byte)
    }

    #[test]
    fn blocks_are_their_owners_alone_and_the_last_freed_is_the_next_taken() {
        let of = |size| Layout::from_size_align(size, 8).unwrap();
        let sizes = || (1..SMALL_MAX + 3_000).step_by(97);
        let blocks: Vec<*mut u8> = sizes().map(|size| filled(of(size), size as u8)).collect();
        for (size, block) in sizes().zip(blocks) {
            assert!(holds(block, size, size as u8), "{size}");
            // SAFETY: the block has this layout, and is given back once.
            unsafe {
                let grown = Heap.realloc(block, of(size), size * 3);
                assert!(holds(grown, size, size as u8), "{size}");
                let shrunk = Heap.realloc(grown, of(size * 3), size);
                assert!(holds(shrunk, size, size as u8), "{size}");
                Heap.dealloc(shrunk, of(size));
                let again = Heap.alloc_zeroed(of(size));
                assert!(size > SMALL_MAX || again == shrunk, "{size}");
                assert!(holds(again, size, 0), "{size}");
                Heap.dealloc(again, of(size));
            }
        }
    }

    #[test]
    fn a_block_may_be_freed_by_another_thread() {
        let layout = Layout::from_size_align(300, 16).unwrap();
        let block = filled(layout, 7) as usize;
        std::thread::scope(|scope| {
            let other = scope.spawn(move || {
                // SAFETY: the block was handed over, and is given back once.
                unsafe { Heap.dealloc(block as *mut u8, layout) };
                filled(layout, 8) as usize
            });
            assert_eq!(other.join().unwrap(), block, "it is that thread's now");
        });
    }
}
