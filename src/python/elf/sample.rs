//! Small ELF files with the same information as a python binary.

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, SectionHeader, Sym, Writer};

/// A binary with these pieces, without those that are `None` or empty.
pub(crate) fn binary(hexversion: Option<u64>, rodata: &[u8], build_id: &[u8]) -> Vec<u8> {
    linked(hexversion, rodata, build_id, b"libc.so.6")
}

/// The same, with the library it needs.
pub(crate) fn linked(
    hexversion: Option<u64>,
    rodata: &[u8],
    build_id: &[u8],
    needed: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    writer.reserve_file_header();
    let note = note(build_id);
    let note_at = writer.reserve(note.len() as u64, 4);
    let rodata_at = writer.reserve(rodata.len() as u64, 8);
    let value = hexversion.unwrap_or(0).to_le_bytes();
    let value_at = writer.reserve(value.len() as u64, 8);
    writer.reserve_null_section_index();
    let note_name = writer.add_section_name(b".note.gnu.build-id");
    writer.reserve_section_index();
    let rodata_name = writer.add_section_name(b".rodata");
    writer.reserve_section_index();
    let data_name = writer.add_section_name(b".data");
    let data_index = writer.reserve_section_index();
    writer.reserve_dynsym_section_index();
    writer.reserve_dynstr_section_index();
    writer.reserve_dynamic_section_index();
    let needed = writer.add_dynamic_string(needed);
    writer.reserve_shstrtab_section_index();
    let symbol = hexversion.map(|_| writer.add_dynamic_string(b"Py_Version"));
    writer.reserve_null_dynamic_symbol_index();
    if symbol.is_some() {
        writer.reserve_dynamic_symbol_index();
    }
    writer.reserve_dynsym();
    writer.reserve_dynstr().unwrap();
    writer.reserve_dynamic(2);
    writer.reserve_shstrtab().unwrap();
    writer.reserve_section_headers();

    writer
        .write_file_header(&FileHeader {
            os_abi: elf::ELFOSABI_SYSV,
            abi_version: 0,
            e_type: elf::ET_EXEC,
            e_machine: elf::EM_X86_64,
            e_entry: 0,
            e_flags: elf::FileFlags(0),
        })
        .unwrap();
    writer.pad_until(note_at);
    writer.write(&note);
    writer.pad_until(rodata_at);
    writer.write(rodata);
    writer.pad_until(value_at);
    writer.write(&value);
    writer.write_null_dynamic_symbol();
    if symbol.is_some() {
        let st_name = writer.dynamic_string_offset(symbol);
        writer.write_dynamic_symbol(&Sym {
            st_name,
            section: Some(data_index.0),
            st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, elf::STT_OBJECT),
            st_other: elf::SymbolOther(0),
            st_shndx: elf::SHN_UNDEF,
            st_value: 0x1000,
            st_size: 8,
        });
    }
    writer.write_dynstr();
    writer.write_align_dynamic();
    writer.write_dynamic_string(elf::DT_NEEDED, needed).unwrap();
    writer.write_dynamic(elf::DT_NULL, 0).unwrap();
    writer.write_shstrtab();
    writer.write_null_section_header();
    let section = |sh_name, sh_type, sh_offset, size: usize, sh_addr| SectionHeader {
        sh_name,
        sh_type,
        sh_flags: elf::SHF_ALLOC,
        sh_addr,
        sh_offset,
        sh_size: size as u64,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 4,
        sh_entsize: 0,
    };
    let name = |id| writer.section_name_offset(Some(id));
    for header in [
        section(name(note_name), elf::SHT_NOTE, note_at, note.len(), 0),
        section(name(rodata_name), elf::SHT_PROGBITS, rodata_at, rodata.len(), 0),
        section(name(data_name), elf::SHT_PROGBITS, value_at, value.len(), 0x1000),
    ] {
        writer.write_section_header(&header);
    }
    writer.write_dynsym_section_header(0, 1);
    writer.write_dynstr_section_header(0);
    writer.write_dynamic_section_header(0);
    writer.write_shstrtab_section_header();
    bytes
}

fn note(build_id: &[u8]) -> Vec<u8> {
    if build_id.is_empty() {
        return Vec::new();
    }
    let length = u32::try_from(build_id.len()).unwrap();
    let mut note = Vec::new();
    for number in [4, length, elf::NT_GNU_BUILD_ID.0] {
        note.extend(number.to_le_bytes());
    }
    note.extend(b"GNU\0");
    note.extend(build_id);
    note
}
