//! Words in pages that snapshots share until they are written.
//!
//! Pages are listed in directories, which snapshots share as well: a snapshot costs a reference for each
//! directory, and the first change afterwards a copy of a directory and a page.

use std::sync::Arc;

/// Words of a page: 4 KiB.
pub const PAGE: usize = 1 << PAGE_BITS;
/// Bits that say which word of a page.
pub const PAGE_BITS: u32 = 10;
/// Pages of a directory.
pub const DIR: usize = 1 << DIR_BITS;
const DIR_BITS: u32 = 7;

/// A page.
pub type Page = [u32; PAGE];

type Dir = [Arc<Page>; DIR];

/// An array of words. A clone shares all pages; the first write to a shared one copies it.
#[derive(Debug, Clone)]
pub struct Pages {
    dirs: Vec<Arc<Dir>>,
    len: usize,
    blank: Arc<Page>,
    blank_dir: Arc<Dir>,
    /// The page of one word that was last written as a whole.
    uniform: Arc<Page>,
}

impl Pages {
    /// So many pages, all words the same; they take the memory of one until they are written.
    pub fn new(count: usize, word: u32) -> Pages {
        let blank = Arc::new([word; PAGE]);
        let blank_dir: Arc<Dir> = Arc::new(std::array::from_fn(|_| blank.clone()));
        let dirs = vec![blank_dir.clone(); count.div_ceil(DIR)];
        Pages { dirs, len: count, uniform: blank.clone(), blank, blank_dir }
    }

    /// Adds a blank page.
    pub fn push(&mut self) {
        if self.len.is_multiple_of(DIR) {
            self.dirs.push(self.blank_dir.clone());
        }
        self.len += 1;
    }

    /// Gives the memory of a page back.
    pub fn clear(&mut self, page: usize) {
        if Arc::ptr_eq(self.shared(page), &self.blank) {
            return;
        }
        *self.shared_mut(page) = self.blank.clone();
        let dir = &mut self.dirs[page / DIR];
        if dir.iter().all(|p| Arc::ptr_eq(p, &self.blank)) {
            *dir = self.blank_dir.clone();
        }
    }

    /// Gives the memory of a page back if all of it is blank.
    pub fn tidy(&mut self, page: usize) {
        if **self.shared(page) == *self.blank {
            self.clear(page);
        }
    }

    /// Has all words of a page the same. Such pages share their memory.
    pub fn fill(&mut self, page: usize, word: u32) {
        let now = self.page(page);
        let same = if self.is_uniform(page) { now[0] == word } else { now.iter().all(|w| *w == word) };
        if same {
            return;
        }
        if word == self.blank[0] {
            return self.clear(page);
        }
        if self.uniform[0] != word {
            self.uniform = Arc::new([word; PAGE]);
        }
        *self.shared_mut(page) = self.uniform.clone();
    }

    /// Writes a page as a whole.
    pub fn replace(&mut self, page: usize, words: Page) {
        if *self.page(page) != words {
            *self.shared_mut(page) = Arc::new(words);
        }
    }

    /// Whether a page is known to have one word alone, without a look at it.
    pub fn is_uniform(&self, page: usize) -> bool {
        let p = self.shared(page);
        Arc::ptr_eq(p, &self.blank) || Arc::ptr_eq(p, &self.uniform)
    }

    /// Whether all pages of a directory are blank.
    pub fn is_blank_dir(&self, dir: usize) -> bool {
        Arc::ptr_eq(&self.dirs[dir], &self.blank_dir)
    }

    /// A page.
    #[inline]
    pub fn page(&self, page: usize) -> &Page {
        self.shared(page)
    }

    #[inline]
    fn shared(&self, page: usize) -> &Arc<Page> {
        &self.dirs[page >> DIR_BITS][page & (DIR - 1)]
    }

    fn shared_mut(&mut self, page: usize) -> &mut Arc<Page> {
        &mut Arc::make_mut(&mut self.dirs[page >> DIR_BITS])[page & (DIR - 1)]
    }

    /// The page of a word, and the place of the word in it.
    #[inline]
    pub fn at(&self, word: usize) -> (&Page, usize) {
        (self.page(word >> PAGE_BITS), word & (PAGE - 1))
    }

    /// A word.
    #[inline]
    pub fn get(&self, word: usize) -> u32 {
        let (page, at) = self.at(word);
        page[at]
    }

    /// The page of a word, to be written, and the place of the word in it.
    pub fn at_mut(&mut self, word: usize) -> (&mut Page, usize) {
        (Arc::make_mut(self.shared_mut(word >> PAGE_BITS)), word & (PAGE - 1))
    }

    /// Writes a word; a page that has it already is left alone.
    pub fn set(&mut self, word: usize, value: u32) {
        if self.get(word) != value {
            let (page, at) = self.at_mut(word);
            page[at] = value;
        }
    }

    /// Pages that are not the same memory as those of another array.
    #[cfg(test)]
    pub fn differing(&self, other: &Pages) -> usize {
        let pages = 0..self.len.min(other.len);
        pages.filter(|p| !Arc::ptr_eq(self.shared(*p), other.shared(*p))).count()
    }

    /// Bytes, those of pages that neighbors share once.
    pub fn memory(&self) -> usize {
        let own = |page: &usize| {
            let p = self.shared(*page);
            !Arc::ptr_eq(p, &self.blank) && (*page == 0 || !Arc::ptr_eq(p, self.shared(page - 1)))
        };
        let dirs = (0..self.dirs.len()).filter(|d| !self.is_blank_dir(*d));
        let (dirs, pages) = dirs.fold((1, 1), |(dirs, pages), dir| {
            (dirs + 1, pages + (dir * DIR..self.len.min((dir + 1) * DIR)).filter(own).count())
        });
        dirs * size_of::<Dir>() + pages * size_of::<Page>() + self.dirs.capacity() * size_of::<Arc<Dir>>()
    }
}
