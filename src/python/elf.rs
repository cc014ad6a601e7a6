//! Reads the version and the build-id of a python binary without running it.

use std::fs::File;
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, SectionHeader, SectionTable, Sym};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, FileKind};

use super::{BuildId, Version};
use crate::host::file::open_untrusted;
use crate::host::{ReadError, hexadecimal};

/// Debian's interpreters have 6 to 9 MB; even with debugging symbols they stay below this.
const FILE_LIMIT: u64 = 256 << 20;

/// A python binary has about 30 sections.
const SECTIONS_LIMIT: u16 = 512;

/// The symbols that extension modules use, and their names: 50 KiB each.
const SYMBOLS_LIMIT: u64 = 4 << 20;

/// `.rodata` of a statically linked interpreter has about 2 MB.
const RODATA_LIMIT: u64 = 32 << 20;

/// The largest scientific libraries need some dozens of others.
const NEEDED_LIMIT: usize = 1000;

const NOTES_LIMIT: u64 = 64 << 10;

/// A text in every binary: the version of the tables of a module, not of Python.
const NOT_PYTHON: &[u8] = b"3.2.0";

/// The information in a python binary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Binary {
    /// `None` for a program that delegates everything to `libpythonX.Y.so` (Debian's builds do
    /// not).
    pub(crate) version: Option<Version>,
    pub(crate) build_id: Option<BuildId>,
    /// Whether it is such a program.
    pub(crate) is_shared: bool,
}

/// Why a binary could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ElfError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{path} is not an ELF program", path = .path.display())]
    NotElf { path: PathBuf },
    #[error("{path} is a damaged ELF program: {detail}", path = .path.display())]
    Damaged { path: PathBuf, detail: object::read::Error },
}

/// Reads version and build-id of an untrusted regular file. Only the necessary pieces are read.
pub(crate) fn read_binary(file: &Path) -> Result<Binary, ElfError> {
    read_opened(open_untrusted(file)?, file)
}

/// The same for an open file; `file` is its name in messages.
pub(crate) fn read_opened(opened: File, file: &Path) -> Result<Binary, ElfError> {
    let path = || file.to_path_buf();
    let metadata = opened.metadata().map_err(|source| ReadError::Io { path: path(), source })?;
    if metadata.len() > FILE_LIMIT {
        return Err(ReadError::TooLarge { path: path(), limit: FILE_LIMIT }.into());
    }
    parse(opened, file, read::<FileHeader32<Endianness>>, read::<FileHeader64<Endianness>>)
}

type Data<'data> = &'data ReadCache<File>;

/// Reads a file of 32 or of 64 bits.
fn parse<T>(
    opened: File,
    file: &Path,
    narrow: fn(Data) -> object::read::Result<T>,
    wide: fn(Data) -> object::read::Result<T>,
) -> Result<T, ElfError> {
    let path = || file.to_path_buf();
    let data = ReadCache::new(opened);
    match FileKind::parse(&data) {
        Ok(FileKind::Elf32) => narrow(&data),
        Ok(FileKind::Elf64) => wide(&data),
        _ => return Err(ElfError::NotElf { path: path() }),
    }
    .map_err(|detail| ElfError::Damaged { path: path(), detail })
}

fn read<Elf: FileHeader<Endian = Endianness>>(data: Data) -> object::read::Result<Binary> {
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    // Zero would move the number into a section, where it can be anything.
    if !(1..=SECTIONS_LIMIT).contains(&header.e_shnum(endian)) {
        return Ok(Binary::default());
    }
    let sections = header.sections(endian, data)?;
    let version = match version_symbol::<Elf>(endian, data, &sections)? {
        Some(version) => Some(version),
        None => version_text::<Elf>(endian, data, &sections)?,
    };
    Ok(Binary {
        version,
        build_id: build_id::<Elf>(endian, data, &sections)?,
        is_shared: needed::<Elf>(endian, data, &sections)?
            .iter()
            .any(|name| name.starts_with(b"libpython")),
    })
}

/// Since 3.11 the exported constant `Py_Version` contains the value of `sys.hexversion`.
fn version_symbol<'data, Elf: FileHeader<Endian = Endianness>>(
    endian: Endianness,
    data: Data<'data>,
    sections: &SectionTable<'data, Elf, Data<'data>>,
) -> object::read::Result<Option<Version>> {
    let Some(table) = sections
        .iter()
        .find(|section| section.sh_type(endian) == elf::SHT_DYNSYM)
        .filter(|section| section.sh_size(endian).into() <= SYMBOLS_LIMIT)
    else {
        return Ok(None);
    };
    let names = sections.section(table.link(endian))?;
    if names.sh_size(endian).into() > SYMBOLS_LIMIT {
        return Ok(None);
    }
    let names = names.data(endian, data)?;
    let symbols: &[Elf::Sym] = table.data_as_array(endian, data)?;
    let is_version = |symbol: &&Elf::Sym| {
        let start = usize::try_from(symbol.st_name(endian)).unwrap_or(usize::MAX);
        names.get(start..).is_some_and(|name| name.starts_with(b"Py_Version\0"))
    };
    let Some(symbol) = symbols.iter().find(is_version) else { return Ok(None) };
    let Some(index) = symbol.st_shndx(endian).index() else { return Ok(None) };
    let Ok(section) = sections.section(object::SectionIndex(index.into())) else {
        return Ok(None);
    };
    let Some((start, length)) = section.file_range(endian) else { return Ok(None) };
    let address: u64 = symbol.st_value(endian).into();
    let word: u64 = if size_of::<Elf::Word>() == 8 { 8 } else { 4 };
    let bytes = address
        .checked_sub(section.sh_addr(endian).into())
        .filter(|offset| offset.checked_add(word).is_some_and(|end| end <= length))
        .and_then(|offset| start.checked_add(offset))
        .and_then(|at| data.read_bytes_at(at, word).ok());
    Ok(bytes.and_then(|bytes| of_hexversion(number(endian, bytes))))
}

/// The number in at most eight bytes.
fn number(endian: Endianness, bytes: &[u8]) -> u64 {
    let add = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
    match endian {
        Endianness::Little => bytes.iter().rev().fold(0, add),
        Endianness::Big => bytes.iter().fold(0, add),
    }
}

/// The version in a number like `sys.hexversion`: `0x030b02f0` is 3.11.2,
/// `0x030e00c1` is 3.14.0rc1.
fn of_hexversion(number: u64) -> Option<Version> {
    let [major, minor, patch, release] = u32::try_from(number).ok()?.to_be_bytes();
    let version = Version::new(major, minor, patch);
    let serial = release & 0xf;
    match release >> 4 {
        0xf => Some(version),
        0xc => version.with_prerelease(&format!("rc{serial}")).ok(),
        0xb => version.with_prerelease(&format!("b{serial}")).ok(),
        0xa => version.with_prerelease(&format!("a{serial}")).ok(),
        _ => None,
    }
}

/// Before 3.11 the version is a separate text in `.rodata`. If there is not exactly one such
/// text, the version is unknown.
fn version_text<'data, Elf: FileHeader<Endian = Endianness>>(
    endian: Endianness,
    data: Data<'data>,
    sections: &SectionTable<'data, Elf, Data<'data>>,
) -> object::read::Result<Option<Version>> {
    let Some((_, section)) = sections.section_by_name(endian, b".rodata") else { return Ok(None) };
    if section.sh_size(endian).into() > RODATA_LIMIT {
        return Ok(None);
    }
    let mut found: Option<Version> = None;
    for text in section.data(endian, data)?.split(|byte| *byte == 0) {
        let Some(version) = python_version(text) else { continue };
        match &found {
            Some(other) if *other != version => return Ok(None),
            _ => found = Some(version),
        }
    }
    Ok(found)
}

fn python_version(text: &[u8]) -> Option<Version> {
    // The longest is like "3.10.0rc12".
    if !(5..=10).contains(&text.len()) || !text.starts_with(b"3.") || text == NOT_PYTHON {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let two_dots = text.bytes().filter(|byte| *byte == b'.').count() == 2;
    two_dots.then(|| text.parse().ok()).flatten()
}

fn build_id<'data, Elf: FileHeader<Endian = Endianness>>(
    endian: Endianness,
    data: Data<'data>,
    sections: &SectionTable<'data, Elf, Data<'data>>,
) -> object::read::Result<Option<BuildId>> {
    for section in sections.iter().filter(|section| section.sh_size(endian).into() <= NOTES_LIMIT) {
        let Some(mut notes) = section.notes(endian, data)? else { continue };
        while let Some(note) = notes.next()? {
            let desired = note.name() == elf::ELF_NOTE_GNU
                && note.n_type(endian) == elf::NT_GNU_BUILD_ID
                && (1..=64).contains(&note.desc().len());
            if desired {
                return Ok(Some(BuildId(hexadecimal(note.desc()))));
            }
        }
    }
    Ok(None)
}

/// The libraries that an extension module or another library needs, by name.
pub(crate) fn needed_libraries(opened: File, file: &Path) -> Result<Vec<String>, ElfError> {
    let narrow = needed_in::<FileHeader32<Endianness>>;
    parse(opened, file, narrow, needed_in::<FileHeader64<Endianness>>)
}

fn needed_in<Elf: FileHeader<Endian = Endianness>>(
    data: Data,
) -> object::read::Result<Vec<String>> {
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    if !(1..=SECTIONS_LIMIT).contains(&header.e_shnum(endian)) {
        return Ok(Vec::new());
    }
    let names = needed::<Elf>(endian, data, &header.sections(endian, data)?)?;
    Ok(names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// The names of the libraries that a file needs.
fn needed<'data, Elf: FileHeader<Endian = Endianness>>(
    endian: Endianness,
    data: Data<'data>,
    sections: &SectionTable<'data, Elf, Data<'data>>,
) -> object::read::Result<Vec<&'data [u8]>> {
    let Some(table) = sections
        .iter()
        .find(|section| section.sh_type(endian) == elf::SHT_DYNAMIC)
        .filter(|section| section.sh_size(endian).into() <= SYMBOLS_LIMIT)
    else {
        return Ok(Vec::new());
    };
    let names = sections.section(table.link(endian))?;
    if names.sh_size(endian).into() > SYMBOLS_LIMIT {
        return Ok(Vec::new());
    }
    let names = names.data(endian, data)?;
    let entries: &[Elf::Dyn] = table.data_as_array(endian, data)?;
    Ok(entries
        .iter()
        .filter(|entry| entry.d_tag(endian) == elf::DT_NEEDED)
        .filter_map(|entry| names.get(usize::try_from(entry.d_val(endian).into()).ok()?..))
        .filter_map(|name| name.split(|byte| *byte == 0).next())
        .take(NEEDED_LIMIT)
        .collect())
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::sample::binary;
    use super::*;

    fn told(bytes: &[u8]) -> Result<Binary, ElfError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("python");
        std::fs::write(&path, bytes).unwrap();
        read_binary(&path)
    }

    fn version(bytes: &[u8]) -> Option<String> {
        told(bytes).unwrap().version.map(|version| version.to_string())
    }

    #[test]
    fn version_and_build_id_are_read_from_a_binary() {
        let told = told(&binary(Some(0x030b_02f0), b"3.2.0\0", &[0xab, 0x01, 0xff, 0x00])).unwrap();
        assert_eq!(
            told,
            Binary {
                version: Some(Version::new(3, 11, 2)),
                build_id: Some(BuildId("ab01ff00".into())),
                is_shared: false,
            }
        );
    }

    #[test]
    fn a_release_candidate_is_distinguished_from_the_release() {
        assert_eq!(version(&binary(Some(0x030e_00c1), b"", b"")).unwrap(), "3.14.0rc1");
        assert_eq!(version(&binary(Some(0x030e_00a7), b"", b"")).unwrap(), "3.14.0a7");
        assert_eq!(version(&binary(Some(0x030e_0010), b"", b"")), None);
    }

    #[test]
    fn the_version_of_an_old_binary_is_a_text() {
        let rodata = b"\x003.2.0\0x3.8.1\x003.9.2\x001.2.11\x003.9\x003.9.2\0";
        assert_eq!(version(&binary(None, rodata, b"")).unwrap(), "3.9.2");
    }

    #[test]
    fn the_version_is_unknown_if_two_texts_look_like_it() {
        assert_eq!(version(&binary(None, b"\x003.9.2\x003.8.1\0", b"")), None);
        assert_eq!(version(&binary(None, b"\x003.2.0\0", b"")), None);
    }

    #[test]
    fn a_program_that_needs_libpython_is_distinguished_from_others() {
        let shared = sample::linked(None, b"", b"", b"libpython3.11.so.1.0");
        assert!(told(&shared).unwrap().is_shared);
        assert!(!told(&binary(None, b"", b"")).unwrap().is_shared);
    }

    #[test]
    fn the_libraries_that_a_module_needs_are_read() {
        let needed = |bytes: &[u8]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            needed_libraries(File::open(file.path()).unwrap(), file.path())
        };
        let module = sample::linked(None, b"", b"", b"libpq.so.5");
        assert_eq!(needed(&module).unwrap(), ["libpq.so.5"]);
        assert_eq!(needed(&binary(None, b"", b"")).unwrap(), ["libc.so.6"]);
        assert!(matches!(needed(b"INPUT(libfoo.so)"), Err(ElfError::NotElf { .. })));
    }

    #[test]
    fn a_file_that_is_not_elf_is_an_error() {
        assert!(matches!(told(b"#!/bin/sh\n"), Err(ElfError::NotElf { .. })));
        assert!(matches!(told(b""), Err(ElfError::NotElf { .. })));
    }

    #[test]
    fn a_damaged_binary_is_an_error_or_has_no_version_but_never_panics() {
        let whole = binary(Some(0x030b_02f0), b"\x003.9.2\0", &[1; 20]);
        for length in 0..whole.len() {
            let _ = told(&whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0x00, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = told(&damaged);
            }
        }
    }
}
