//! The disk model: what is visible, what is durable, and what a power loss makes of the difference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::StdRng;

pub(super) const SECTOR_BYTES: usize = 512;
/// Unsynced versions of one sector that may reach the disk; older ones are forgotten.
const VERSIONS_MAX: usize = 4;

/// What a power loss leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Everything, directory entries too.
    Everything,
    /// Each sector, size and directory entry or not, by the disk's own randomness.
    Random,
    /// Sizes and directory entries, but no sectors: files end in zeros.
    SizesWithoutContent,
    /// Sectors up to the synced size, and no directory entries.
    ContentWithoutSizes,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    /// What readers see.
    pub visible: Vec<u8>,
    /// What the disk holds for certain.
    durable: Vec<u8>,
    /// Sectors written since the last sync, with the versions they had.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    /// Whether the size changed since the last sync.
    size_unsynced: bool,
}

impl Inode {
    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.visible.len() {
            self.visible.resize(end, 0);
            self.size_unsynced = true;
        }
        self.visible[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let versions = self.unsynced.entry(sector).or_default();
            versions.push(sector_of(&self.visible, sector).to_vec());
            if versions.len() > VERSIONS_MAX {
                versions.remove(0);
            }
        }
    }

    pub fn set_len(&mut self, len: usize) {
        self.visible.resize(len, 0);
        self.size_unsynced = true;
        self.unsynced.retain(|&sector, _| sector * SECTOR_BYTES < len);
    }

    pub fn sync(&mut self) {
        self.durable.resize(self.visible.len(), 0);
        for (sector, _) in std::mem::take(&mut self.unsynced) {
            put_sector(&mut self.durable, sector, sector_of(&self.visible, sector));
        }
        self.size_unsynced = false;
    }

    /// A sync that fails: a part reaches the disk, the rest never will, and all of it looks clean.
    pub fn fail_sync(&mut self, random: &mut StdRng) {
        let visible = self.visible.clone();
        self.lose(Keep::Random, random);
        self.visible = visible;
    }

    /// Content and size as they are on the disk, made visible and durable: a test writes damage.
    pub fn replace(&mut self, content: Vec<u8>) {
        *self = Inode { durable: content.clone(), visible: content, ..Inode::default() };
    }

    fn lose(&mut self, keep: Keep, random: &mut StdRng) {
        let keeps_size = match keep {
            Keep::Everything | Keep::SizesWithoutContent => true,
            Keep::Nothing | Keep::ContentWithoutSizes => false,
            Keep::Random => random.random_bool(0.5),
        };
        if keeps_size && self.size_unsynced {
            self.durable.resize(self.visible.len(), 0);
        }
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let kept = match keep {
                Keep::Everything | Keep::ContentWithoutSizes => versions.last(),
                Keep::Nothing | Keep::SizesWithoutContent => None,
                // One more than there are: the sector as it was.
                Keep::Random => versions.get(random.random_range(0..=versions.len())),
            };
            if let Some(bytes) = kept {
                put_sector(&mut self.durable, sector, bytes);
            }
        }
        self.size_unsynced = false;
        self.visible.clone_from(&self.durable);
    }
}

fn sector_of(content: &[u8], sector: usize) -> &[u8] {
    &content[sector * SECTOR_BYTES..content.len().min((sector + 1) * SECTOR_BYTES)]
}

/// As far as the file reaches.
fn put_sector(content: &mut [u8], sector: usize, bytes: &[u8]) {
    let start = (sector * SECTOR_BYTES).min(content.len());
    let len = bytes.len().min(content.len() - start);
    content[start..start + len].copy_from_slice(&bytes[..len]);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(usize),
}

type Names = BTreeMap<PathBuf, Node>;

/// A change of directory entries that is not synced yet.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn apply(&self, names: &mut Names, node_of_target: Option<Node>) {
        match self {
            Change::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            Change::Unlink(path) => {
                names.retain(|name, _| !name.starts_with(path));
            }
            Change::Rename(from, to) => {
                names.retain(|name, _| !name.starts_with(to));
                let moved: Vec<PathBuf> = names.keys().filter(|name| name.starts_with(from)).cloned().collect();
                for name in moved {
                    let node = names.remove(&name);
                    let below = name.strip_prefix(from).unwrap_or(Path::new(""));
                    let target = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    names.extend(node.map(|node| (target, node)));
                }
                // The entry may be durable before the one it was made from ever was.
                names.extend(node_of_target.map(|node| (to.clone(), node)));
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        match self {
            Change::Link(path, _) | Change::Unlink(path) => path.parent() == Some(dir),
            Change::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

/// Files and directories, visible and durable.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub inodes: Vec<Inode>,
    visible: Names,
    durable: Names,
    /// In order of time, with what a rename moved.
    unsynced: Vec<(Change, Option<Node>)>,
}

impl Disk {
    pub fn node(&self, path: &Path) -> Option<Node> {
        if path.parent().is_none() || path.as_os_str().is_empty() {
            return Some(Node::Dir);
        }
        self.visible.get(path).copied()
    }

    pub fn names_in(&self, dir: &Path) -> Vec<String> {
        let inside = self.visible.keys().filter(|path| path.parent() == Some(dir));
        inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
    }

    pub fn create_file(&mut self, path: &Path) -> usize {
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.change(Change::Link(path.to_path_buf(), Node::File(inode)));
        inode
    }

    pub fn create_dir(&mut self, path: &Path) {
        // Entries are known by path, so what is synced inside the new directory must not fall with the removal
        // of an old one of the same name: that removal counts as synced.
        let (same, others) = std::mem::take(&mut self.unsynced)
            .into_iter()
            .partition(|(change, _)| matches!(change, Change::Unlink(gone) if gone == path));
        self.unsynced = others;
        let same: Vec<(Change, Option<Node>)> = same;
        same.iter().for_each(|(change, moved)| change.apply(&mut self.durable, *moved));
        self.change(Change::Link(path.to_path_buf(), Node::Dir));
    }

    pub fn remove(&mut self, path: &Path) {
        self.change(Change::Unlink(path.to_path_buf()));
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        self.change(Change::Rename(from.to_path_buf(), to.to_path_buf()));
    }

    fn change(&mut self, change: Change) {
        let moved = match &change {
            Change::Rename(from, _) => self.visible.get(from).copied(),
            _ => None,
        };
        change.apply(&mut self.visible, None);
        self.unsynced.push((change, moved));
    }

    pub fn sync_dir(&mut self, dir: &Path) {
        let (synced, unsynced) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|(change, _)| change.touches(dir));
        self.unsynced = unsynced;
        let synced: Vec<(Change, Option<Node>)> = synced;
        synced.iter().for_each(|(change, moved)| change.apply(&mut self.durable, *moved));
    }

    /// The power fails.
    pub fn lose(&mut self, keep: Keep, random: &mut StdRng) {
        for (change, moved) in std::mem::take(&mut self.unsynced) {
            let kept = match keep {
                Keep::Everything | Keep::SizesWithoutContent => true,
                Keep::Nothing | Keep::ContentWithoutSizes => false,
                Keep::Random => random.random_bool(0.5),
            };
            if kept {
                change.apply(&mut self.durable, moved);
            }
        }
        let dirs: Names = self
            .durable
            .iter()
            .filter(|(_, node)| **node == Node::Dir)
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        let rooted = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|dir| dir.parent().is_none() || dir.as_os_str().is_empty() || dirs.contains_key(dir))
        };
        self.durable.retain(|path, _| rooted(path));
        self.inodes.iter_mut().for_each(|inode| inode.lose(keep, random));
        self.visible.clone_from(&self.durable);
    }

    /// Bytes of all files that have a name.
    pub fn used(&self) -> u64 {
        let files = self.visible.values().filter_map(|node| match node {
            Node::File(inode) => self.inodes.get(*inode),
            Node::Dir => None,
        });
        files.map(|inode| inode.visible.len() as u64).sum()
    }

    /// Makes content and entry of a file durable and visible as given, whatever was there.
    pub fn plant(&mut self, path: &Path, content: Option<Vec<u8>>) {
        let node = match (self.node(path), content) {
            (Some(Node::File(inode)), Some(content)) => {
                self.inodes[inode].replace(content);
                Some(Node::File(inode))
            }
            (_, Some(content)) => {
                let mut inode = Inode::default();
                inode.replace(content);
                self.inodes.push(inode);
                Some(Node::File(self.inodes.len() - 1))
            }
            (_, None) => None,
        };
        for names in [&mut self.visible, &mut self.durable] {
            match node {
                Some(node) => names.insert(path.to_path_buf(), node),
                None => names.remove(path),
            };
        }
    }
}
