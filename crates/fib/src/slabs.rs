//! Which blocks of the pages are free.
//!
//! A page holds blocks of one size. Once none of them is in use the page serves any size again, so a table
//! that has changed often needs little more memory than one that is new.

use crate::pages::PAGE;

/// Sizes are multiples of so many words.
const STEP: usize = 4;
/// Words of the largest block: a node with 64 different slots.
const LARGEST: usize = 68;
const SIZES: usize = LARGEST / STEP;
/// Not in a list.
const NOWHERE: u32 = u32::MAX;

/// A page and its free blocks.
#[derive(Debug, Clone)]
struct Slab {
    size: u8,
    used: u16,
    /// A bit for each free block.
    free: [u64; PAGE / STEP / 64],
    /// The place in the list of pages of its size that have a free block.
    place: u32,
}

/// Where a block is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a page that is there.
    At(usize),
    /// In a page that has to be added first.
    InNewPage(usize),
}

/// The free blocks of all pages.
#[derive(Debug, Clone, Default)]
pub struct Slabs {
    slabs: Vec<Slab>,
    /// By size, pages with a free block.
    partial: [Vec<u32>; SIZES],
    /// Pages without a block in use.
    empty: Vec<u32>,
    words: usize,
}

/// The number of the size of a block.
pub const fn size_class(words: usize) -> usize {
    words.div_ceil(STEP) - 1
}

const fn blocks(size: usize) -> usize {
    PAGE / ((size + 1) * STEP)
}

impl Slabs {
    /// Words of the blocks in use.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Pages with a block in use.
    pub fn pages(&self) -> usize {
        self.slabs.len() - self.empty.len()
    }

    /// Takes a block of so many words.
    pub fn take(&mut self, words: usize) -> Place {
        let size = size_class(words);
        self.words += (size + 1) * STEP;
        let (page, new) = match self.partial[size].last() {
            Some(&page) => (page as usize, false),
            None => self.begin_page(size),
        };
        let slab = &mut self.slabs[page];
        let (mut block, mut full) = (0, true);
        for (i, word) in slab.free.iter_mut().enumerate() {
            if *word != 0 {
                block = i * 64 + word.trailing_zeros() as usize;
                *word &= *word - 1;
                break;
            }
        }
        full &= slab.free.iter().all(|w| *w == 0);
        slab.used += 1;
        if full {
            self.unlist(page);
        }
        let at = page * PAGE + block * (size + 1) * STEP;
        if new { Place::InNewPage(at) } else { Place::At(at) }
    }

    fn begin_page(&mut self, size: usize) -> (usize, bool) {
        let mut free = [0; PAGE / STEP / 64];
        for block in 0..blocks(size) {
            free[block / 64] |= 1 << (block % 64);
        }
        let slab = Slab { size: size as u8, used: 0, free, place: NOWHERE };
        let (page, new) = match self.empty.pop() {
            Some(page) => {
                self.slabs[page as usize] = slab;
                (page as usize, false)
            }
            None => {
                self.slabs.push(slab);
                (self.slabs.len() - 1, true)
            }
        };
        self.list(page);
        (page, new)
    }

    /// Gives a block back. The number of its page, if that has no other block in use.
    pub fn give_back(&mut self, at: usize) -> Option<usize> {
        let page = at / PAGE;
        let slab = &mut self.slabs[page];
        let words = (usize::from(slab.size) + 1) * STEP;
        let block = at % PAGE / words;
        slab.free[block / 64] |= 1 << (block % 64);
        slab.used -= 1;
        self.words -= words;
        let (unused, listed) = (slab.used == 0, slab.place != NOWHERE);
        if unused {
            if listed {
                self.unlist(page);
            }
            self.empty.push(page as u32);
            return Some(page);
        }
        if !listed {
            self.list(page);
        }
        None
    }

    fn list(&mut self, page: usize) {
        let list = &mut self.partial[usize::from(self.slabs[page].size)];
        self.slabs[page].place = list.len() as u32;
        list.push(page as u32);
    }

    fn unlist(&mut self, page: usize) {
        let place = std::mem::replace(&mut self.slabs[page].place, NOWHERE) as usize;
        let list = &mut self.partial[usize::from(self.slabs[page].size)];
        list.swap_remove(place);
        if let Some(&moved) = list.get(place) {
            self.slabs[moved as usize].place = place as u32;
        }
    }

    /// Bytes of these lists.
    pub fn memory(&self) -> usize {
        let lists = self.partial.iter().chain([&self.empty]).map(Vec::capacity).sum::<usize>();
        self.slabs.capacity() * std::mem::size_of::<Slab>() + lists * std::mem::size_of::<u32>()
    }
}
