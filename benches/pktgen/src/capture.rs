//! Frames of a pcap or pcapng file.

use crate::plan::MAX_FRAME;
use anyhow::{Context, Result, bail};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::time::Duration;

/// Frames taken from a file at most.
pub const MAX_FRAMES: usize = 65_536;
/// Bytes of a frame in `struct pg_captured`.
const ROOM: usize = 1536;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedFrame {
    /// Since the one before.
    pub gap: Duration,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Capture {
    pub frames: Vec<CapturedFrame>,
    /// Frames keep their distances.
    pub timed: bool,
    /// Frames of the file that were left out: longer than 1,514 bytes or cut off.
    pub left_out: usize,
}

impl Capture {
    pub fn read(path: &Path, timed: bool) -> Result<Capture> {
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).with_context(|| format!("{}: no pcap file", path.display()))?;
        file.rewind()?;
        let file = BufReader::new(file);
        let mut c = Capture { frames: Vec::new(), timed, left_out: 0 };
        let mut before = None;
        let mut add = |time: Duration, whole: usize, bytes: &[u8]| {
            if !(14..=MAX_FRAME).contains(&whole) || bytes.len() < whole {
                c.left_out += 1;
                return c.frames.len() < MAX_FRAMES;
            }
            let gap = time.saturating_sub(before.unwrap_or(time)).min(Duration::from_secs(4));
            before = Some(time);
            c.frames.push(CapturedFrame { gap, bytes: bytes.to_vec() });
            c.frames.len() < MAX_FRAMES
        };
        if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
            let mut reader = PcapNgReader::new(file).context("pcapng")?;
            while let Some(block) = reader.next_block() {
                if let Block::EnhancedPacket(p) = block.context("pcapng")?
                    && !add(p.timestamp, p.original_len as usize, &p.data)
                {
                    break;
                }
            }
        } else {
            let mut reader =
                PcapReader::new(file).with_context(|| format!("{}: no pcap file", path.display()))?;
            while let Some(packet) = reader.next_packet() {
                let p = packet.context("pcap")?;
                if !add(p.timestamp, p.orig_len as usize, &p.data) {
                    break;
                }
            }
        }
        if c.frames.is_empty() {
            bail!("{}: no Ethernet frame of 14 to {MAX_FRAME} bytes", path.display());
        }
        Ok(c)
    }

    pub(crate) fn store(&self, map: &MapHandle) -> Result<()> {
        for (n, f) in (0u32..).zip(&self.frames) {
            let mut value = Vec::with_capacity(ROOM + 8);
            value.extend((f.bytes.len() as u32).to_ne_bytes());
            value.extend((f.gap.as_nanos() as u32).to_ne_bytes());
            value.extend(&f.bytes);
            value.resize(map.value_size() as usize, 0);
            map.update(&n.to_ne_bytes(), &value, MapFlags::ANY)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapPacket, PcapWriter};

    fn file(frames: &[(u64, u32, Vec<u8>)]) -> tempfile::NamedTempFile {
        let f = tempfile::NamedTempFile::new().unwrap();
        let mut w = PcapWriter::new(f.reopen().unwrap()).unwrap();
        for (us, whole, bytes) in frames {
            w.write_packet(&PcapPacket::new(Duration::from_micros(*us), *whole, bytes)).unwrap();
        }
        f
    }

    #[test]
    fn frames_and_gaps() {
        let f = file(&[(10, 60, vec![1; 60]), (35, 100, vec![2; 100])]);
        let c = Capture::read(f.path(), true).unwrap();
        assert_eq!(c.frames.iter().map(|f| f.gap.as_micros()).collect::<Vec<_>>(), [0, 25]);
        assert_eq!(c.frames[1].bytes, vec![2; 100]);
        assert_eq!(c.left_out, 0);
    }

    #[test]
    fn what_cannot_be_sent_is_counted() {
        let f = file(&[(0, 1600, vec![0; 1600]), (0, 200, vec![0; 96]), (0, 60, vec![0; 60])]);
        let c = Capture::read(f.path(), false).unwrap();
        assert_eq!((c.frames.len(), c.left_out), (1, 2));
        let f = file(&[(0, 1600, vec![0; 1600])]);
        assert!(Capture::read(f.path(), false).unwrap_err().to_string().contains("no Ethernet frame"));
    }

    #[test]
    fn not_a_capture() {
        let f = tempfile::NamedTempFile::new().unwrap();
        assert!(Capture::read(f.path(), false).is_err());
        std::fs::write(f.path(), "hello, this is text").unwrap();
        assert!(Capture::read(f.path(), false).is_err());
        assert!(Capture::read(Path::new("/nowhere"), false).is_err());
    }
}
