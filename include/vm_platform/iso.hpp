// Reads disc images: ISO 9660 levels 1 to 3 and version 2, Joliet, Rock Ridge, El Torito, zisofs.
//
// `SimpleIso9660::open("debian.iso")` reads a few sectors, whatever the size of the image; everything else is read when
// it is asked for. An image is never believed: every length, location and chain is checked before it is used, and what
// is damaged comes back as a `VmError` that names the byte offset. Specifications: ECMA-119 4th edition, the Joliet
// specification, IEEE P1281 (SUSP 1.12), IEEE P1282 (RRIP 1.12), El Torito 1.0.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// Which of an image's parallel directory trees gives the names.
enum class IsoNameSpace : std::uint8_t {
  Auto,       ///< The best there is: Rock Ridge, then Joliet, then Enhanced, then Plain.
  Plain,      ///< ISO 9660 names as recorded, without the version number: `README.TXT`.
  RockRidge,  ///< POSIX names and metadata in the system use areas of the plain tree (RRIP).
  Joliet,     ///< UTF-16 names of a supplementary volume descriptor.
  Enhanced,   ///< ISO 9660:1999 ("version 2"): names of up to 207 bytes.
};
[[nodiscard]] std::string_view to_string(IsoNameSpace names) noexcept;

enum class IsoEntryType : std::uint8_t { File, Directory, Symlink, CharacterDevice, BlockDevice, Fifo, Socket };
[[nodiscard]] std::string_view to_string(IsoEntryType type) noexcept;

/// A moment and the zone it was recorded in.
struct IsoTime {
  std::int64_t seconds = 0;       ///< Seconds since 1970-01-01 00:00:00 UTC.
  std::uint32_t nanoseconds = 0;  ///< 0 to 999,999,999; the format records hundredths of a second at best.
  std::int16_t zone_minutes = 0;  ///< Minutes east of UTC, -720 to 780 in steps of 15.
  bool present = false;           ///< False where the image records none.

  bool operator==(const IsoTime&) const = default;
};

/// Bytes of the image, in the logical image (2048-byte sectors) where the file holds raw sectors.
struct IsoExtent {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;

  bool operator==(const IsoExtent&) const = default;
};

/// One name in a directory and all that is recorded about it. A plain value; reusing one object for
/// `IsoDirectory::next` keeps its buffers, so that listing does not allocate.
struct IsoEntry {
  std::string
      name;  ///< UTF-8. May hold any character, even `/` or a control character, in a hostile image: check before use.
  IsoEntryType type = IsoEntryType::File;
  bool hidden = false;       ///< The "existence" flag (ECMA-119 9.1.6).
  bool has_posix = false;    ///< Mode, owner and links below come from Rock Ridge.
  bool interleaved = false;  ///< Recorded in interleaved mode; reading it is refused.
  bool relocated = false;    ///< A directory reached through a Rock Ridge child link.

  std::uint32_t mode = 0;   ///< Permission bits 07777. Without Rock Ridge 0444, and 0555 for a directory.
  std::uint32_t links = 1;  ///< Number of hard links, as recorded.
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t serial = 0;        ///< File serial number (RRIP 1.12), 0 if none.
  std::uint32_t device_major = 0;  ///< Of a device node.
  std::uint32_t device_minor = 0;

  std::uint64_t size =
      0;  ///< Bytes that reading gives: of a zisofs file the uncompressed size, of a sparse file with its zeros.
  std::uint64_t stored_size = 0;  ///< Bytes on the medium.
  IsoTime modified, accessed, changed, created;
  std::string symlink_target;  ///< UTF-8, of a symbolic link.

  std::uint64_t record_offset = 0;  ///< Byte offset of the directory record in the image.
  std::uint8_t extended_attribute_blocks = 0;

  /// Levels of index of a sparse file (Rock Ridge SF), 1 to 7; 0 for any other file, 255 where
  /// the field is damaged, and reading refused. Reading gives the zeros too.
  std::uint8_t sparse_depth = 0;

  /// How a zisofs file is stored; `block_log2` is 0 for any other file.
  struct Zisofs {
    std::uint8_t block_log2 = 0;
    std::uint8_t header_size_div4 = 0;
    bool version2 = false;
  } zisofs;

  [[nodiscard]] bool is_directory() const noexcept { return type == IsoEntryType::Directory; }
  [[nodiscard]] bool is_file() const noexcept { return type == IsoEntryType::File; }
  [[nodiscard]] bool is_symlink() const noexcept { return type == IsoEntryType::Symlink; }
  /// Where the content lies, in order. Not checked against the size of the image.
  [[nodiscard]] std::span<const IsoExtent> extents() const noexcept {
    return more_extents_.empty() ? std::span(&first_extent_, 1) : std::span(more_extents_);
  }
  /// Replaces the extents by one.
  void set_extent(IsoExtent extent) {
    first_extent_ = extent;
    more_extents_.clear();
  }
  /// Adds a section of a multi-extent file.
  void add_extent(IsoExtent extent) {
    if (more_extents_.empty()) more_extents_.push_back(first_extent_);
    more_extents_.push_back(extent);
  }

 private:
  IsoExtent first_extent_;
  std::vector<IsoExtent> more_extents_;
};

/// How the file that holds the image lays out its sectors.
enum class IsoSectorFormat : std::uint8_t {
  Cooked2048,  ///< 2048 bytes of user data each: the common form.
  Raw2352,     ///< Sync pattern, header, data, error correction: a `.bin` file. Mode 1 and mode 2 form 1.
  Raw2336,     ///< Mode 2 without sync and header.
};
[[nodiscard]] std::string_view to_string(IsoSectorFormat format) noexcept;

/// One session of a multi-session image.
struct IsoSession {
  std::uint64_t start_block = 0;    ///< 2048-byte sector; its volume descriptors are 16 sectors further.
  std::uint64_t volume_blocks = 0;  ///< Volume space size as its descriptor has it.
  std::string volume_id;
};

/// A partition of a hybrid image.
struct IsoPartition {
  std::string scheme;  ///< `mbr`, `gpt` or `apm`.
  std::string type;    ///< MBR type byte (`0xef`), GPT type GUID, or Apple type name.
  std::string name;
  std::uint64_t offset = 0;  ///< Bytes.
  std::uint64_t size = 0;    ///< Bytes.
  bool active = false;
};

/// What an image says of itself.
struct IsoVolumeInfo {
  std::string volume_id, system_id, volume_set_id, publisher, preparer, application;
  std::string copyright_file, abstract_file, bibliographic_file;
  IsoTime created, modified, expires, effective;
  std::uint32_t block_size = 2048;           ///< Logical block size in bytes: 512 to 32768, a power of two.
  std::uint64_t volume_blocks = 0;           ///< Volume space size, in logical blocks.
  std::uint64_t image_size = 0;              ///< Bytes of (logical) image there are.
  std::uint16_t set_size = 1;                ///< Volumes in the set.
  std::uint16_t sequence_number = 1;         ///< This volume's number in it.
  IsoNameSpace names = IsoNameSpace::Plain;  ///< In use.
  std::vector<IsoNameSpace> available_names;
  int joliet_level = 0;              ///< 1 to 3; 0 without Joliet.
  std::string rock_ridge_extension;  ///< The identifier of its ER field, such as `RRIP_1991A`.
  bool has_boot_catalog = false;     ///< El Torito.
  bool udf_bridge = false;           ///< A UDF file system describes the same files.
  bool xa = false;                   ///< CD-XA signature.
  IsoSectorFormat sector_format = IsoSectorFormat::Cooked2048;
  std::uint64_t session_start = 0;  ///< First sector of the session in use.
  std::vector<IsoSession> sessions;
  std::vector<IsoPartition> partitions;

  /// The descriptor promises more bytes than the image has.
  [[nodiscard]] bool truncated() const noexcept { return volume_blocks * block_size > image_size; }
};

/// One image of the El Torito boot catalogue.
struct IsoBootImage {
  enum class Emulation : std::uint8_t { None, Floppy1200, Floppy1440, Floppy2880, HardDisk };
  std::uint8_t platform = 0;  ///< 0 x86 BIOS, 1 PowerPC, 2 Mac, 0xEF EFI.
  std::string section_id;     ///< Of its section header; empty for the initial entry.
  bool bootable = false;
  Emulation emulation = Emulation::None;
  std::uint16_t load_segment = 0;  ///< 0 means 0x7c0.
  std::uint8_t system_type = 0;    ///< Partition type of a hard disk image.
  std::uint16_t sector_count = 0;  ///< 512-byte sectors that firmware loads.
  std::uint64_t offset = 0;        ///< Bytes into the image.
  std::uint64_t entry_offset = 0;  ///< Of the 32-byte catalogue entry.
};
[[nodiscard]] std::string_view to_string(IsoBootImage::Emulation emulation) noexcept;
/// `x86`, `PowerPC`, `Mac`, `EFI` or `platform 0x…`.
[[nodiscard]] std::string iso_boot_platform_name(std::uint8_t platform);

struct IsoBootCatalog {
  std::uint64_t offset = 0;  ///< Bytes into the image.
  std::string id;            ///< Of the validation entry.
  bool checksum_ok = false;
  std::vector<IsoBootImage> images;
};

/// Extended attribute record of a file (ECMA-119 9.5).
struct IsoExtendedAttributes {
  std::uint16_t owner = 0, group = 0, permissions = 0;
  IsoTime created, modified, expires, effective;
  std::uint8_t record_format = 0, record_attributes = 0;
  std::uint16_t record_length = 0;
  std::string system_id;
};

/// Names of one directory, read as they are asked for. Move-only; one thread at a time (open one per thread).
class IsoDirectory {
 public:
  /// What an implementation of `Iso9660` provides.
  class Cursor {
   public:
    virtual ~Cursor() = default;
    virtual Result<bool> next(IsoEntry& entry) = 0;
    virtual void release_buffer() noexcept = 0;
  };
  explicit IsoDirectory(std::unique_ptr<Cursor> cursor) : cursor_(std::move(cursor)) {}

  /// Puts the next name into `entry`; false at the end. `.` and `..` are not given. After an error the next call goes
  /// on behind the damaged place, so that whatever can be listed is.
  Result<bool> next(IsoEntry& entry) { return cursor_->next(entry); }
  /// Gives back the read buffer; the next call of `next` reads again from where it was.
  void release_buffer() noexcept { cursor_->release_buffer(); }

 private:
  std::unique_ptr<Cursor> cursor_;
};

/// Whether a path's last component, if it is a symbolic link, is followed.
enum class IsoFollow : std::uint8_t { Yes, No };
enum class IsoCase : std::uint8_t { AsRecorded, Ignore };

/// A disc image. All functions may be called from several threads at once.
class Iso9660 {
 public:
  virtual ~Iso9660() = default;

  [[nodiscard]] virtual const IsoVolumeInfo& volume() const noexcept = 0;
  /// The root directory; its name is empty.
  [[nodiscard]] virtual const IsoEntry& root() const noexcept = 0;

  /// Looks `path` up (`/` or `boot/vmlinuz`, `.` and `..` allowed). Reads only the directories on the way. Symbolic
  /// links lead within the image: an absolute target starts at its root, and `..` does not leave it. A tree without
  /// upper and lower case (Plain, Enhanced, Joliet) falls back to the first name that differs only in ASCII case.
  [[nodiscard]] virtual Result<IsoEntry> find(std::string_view path, IsoFollow follow = IsoFollow::Yes,
                                              IsoCase letters = IsoCase::AsRecorded) const = 0;
  [[nodiscard]] virtual Result<IsoDirectory> open_directory(const IsoEntry& directory) const = 0;

  /// Reads up to `into.size()` bytes of a file from `offset` on; fewer only at its end, 0 there and past it. zisofs
  /// files come decompressed. Fails with `Corrupt` where the image ends before the file does.
  [[nodiscard]] virtual Result<std::size_t> read(const IsoEntry& file, std::uint64_t offset,
                                                 std::span<std::byte> into) const = 0;
  /// The bytes of a file that is stored as it is in one extent, without copying; valid as long as the reader. Fails
  /// with `Unsupported` for any other file. Where the image is a file that is made shorter meanwhile, touching the
  /// bytes raises SIGBUS; `read` reports an error instead.
  [[nodiscard]] virtual Result<std::span<const std::byte>> view(const IsoEntry& file) const = 0;

  /// The whole file, at most `limit` bytes (`InvalidArgument` when it is larger).
  [[nodiscard]] Result<std::vector<std::byte>> read_all(const IsoEntry& file, std::uint64_t limit = 1 * kGiB) const;

  /// Bytes of the image itself, as `read` of a file; offsets as in `IsoExtent`.
  [[nodiscard]] virtual Result<std::size_t> read_image(std::uint64_t offset, std::span<std::byte> into) const = 0;
  /// The El Torito catalogue; `NotFound` where there is none.
  [[nodiscard]] virtual Result<IsoBootCatalog> boot_catalog() const = 0;
  /// `NotFound` for a file that has none.
  [[nodiscard]] virtual Result<IsoExtendedAttributes> extended_attributes(const IsoEntry& file) const = 0;
};

/// How to open an image.
struct IsoOpenOptions {
  IsoNameSpace names = IsoNameSpace::Auto;
  bool decompress = true;  ///< False gives zisofs and sparse files as they are stored.
  /// First sector of the session to read, as `IsoVolumeInfo::sessions` has them; without it the last one.
  std::optional<std::uint64_t> session;
};

/// The standard implementation.
class SimpleIso9660 final : public Iso9660 {
 public:
  /// Opens an image file, or a disc drive's device file. Fails with `Corrupt` or `Unsupported` naming what the file is
  /// instead (compressed, pure UDF, Nero, 2448-byte sectors, …).
  [[nodiscard]] static Result<SimpleIso9660> open(const std::string& path, const IsoOpenOptions& options = {});
  /// Reads through `descriptor`, which stays the caller's and must outlive the reader. Its file position is not used.
  [[nodiscard]] static Result<SimpleIso9660> open_descriptor(int descriptor, const IsoOpenOptions& options = {});
  /// `image` must outlive the reader.
  [[nodiscard]] static Result<SimpleIso9660> open_memory(std::span<const std::byte> image,
                                                         const IsoOpenOptions& options = {});

  SimpleIso9660(SimpleIso9660&&) noexcept;
  SimpleIso9660& operator=(SimpleIso9660&&) noexcept;
  ~SimpleIso9660() override;

  [[nodiscard]] const IsoVolumeInfo& volume() const noexcept override;
  [[nodiscard]] const IsoEntry& root() const noexcept override;
  [[nodiscard]] Result<IsoEntry> find(std::string_view path, IsoFollow follow = IsoFollow::Yes,
                                      IsoCase letters = IsoCase::AsRecorded) const override;
  [[nodiscard]] Result<IsoDirectory> open_directory(const IsoEntry& directory) const override;
  [[nodiscard]] Result<std::size_t> read(const IsoEntry& file, std::uint64_t offset,
                                         std::span<std::byte> into) const override;
  [[nodiscard]] Result<std::span<const std::byte>> view(const IsoEntry& file) const override;
  [[nodiscard]] Result<std::size_t> read_image(std::uint64_t offset, std::span<std::byte> into) const override;
  [[nodiscard]] Result<IsoBootCatalog> boot_catalog() const override;
  [[nodiscard]] Result<IsoExtendedAttributes> extended_attributes(const IsoEntry& file) const override;

  /// Writes a whole file to a descriptor, by the quickest way the host has (on Linux without copying through this
  /// process). Returns the bytes written. Once `*stop` is true it ends after the next 16 MiB at most, with
  /// `Interrupted`.
  [[nodiscard]] Result<std::uint64_t> copy_to_descriptor(const IsoEntry& file, int descriptor,
                                                         const std::atomic<bool>* stop = nullptr) const;

  struct Impl;
  [[nodiscard]] const Impl& impl() const noexcept { return *impl_; }

 private:
  explicit SimpleIso9660(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Walks a tree: every entry below a directory, parents first. A directory that the image lists twice (or inside
/// itself) is reported as an error and not entered again, and no more directory bytes are read than the image has, so
/// that a walk always ends. One thread at a time.
class IsoWalk {
 public:
  /// `top` is not given itself. The reader must outlive the walk.
  IsoWalk(const Iso9660& iso, const IsoEntry& top);
  IsoWalk(IsoWalk&&) noexcept;
  ~IsoWalk();

  /// Puts the next entry into `entry`; false at the end. An error concerns one directory; the next call goes on.
  Result<bool> next(IsoEntry& entry);
  /// The last entry's path, relative to the top, without a leading `/`.
  [[nodiscard]] std::string_view path() const noexcept;
  /// 0 for a name directly below the top.
  [[nodiscard]] std::size_t depth() const noexcept;
  /// Does not enter the directory just given.
  void skip() noexcept;

  /// Deepest nesting that is entered; ECMA-119 allows 8 levels, Rock Ridge any.
  static constexpr std::size_t kMaxDepth = 4096;
  /// Directories that one walk enters (memory: 16 bytes each at most).
  static constexpr std::size_t kMaxDirectories = 4'000'000;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Shell pattern on a UTF-8 path: `*` and `?` do not match `/`, `**` does, `[a-z]` and `[!a-z]` are sets, `\` quotes.
[[nodiscard]] bool iso_glob_match(std::string_view pattern, std::string_view path);

/// One inconsistency found by `iso_verify`.
struct IsoIssue {
  enum class Severity : std::uint8_t { Warning, Error };
  Severity severity = Severity::Error;
  std::uint64_t offset = 0;  ///< Byte offset in the image.
  std::string where;         ///< Path or structure.
  std::string what;
};

/// What `iso_verify` counted.
struct IsoVerifyReport {
  std::uint64_t directories = 0, files = 0, bytes = 0;
  std::uint64_t errors = 0, warnings = 0;
};
/// Told of each issue as it is found.
class IsoIssueSink {
 public:
  virtual ~IsoIssueSink() = default;
  virtual void issue(const IsoIssue& issue) = 0;
};
/// Walks everything in every name space and reads every file; each inconsistency goes to `sink`. Fails only where the
/// image can't be read at all.
[[nodiscard]] Result<IsoVerifyReport> iso_verify(const SimpleIso9660& iso, IsoIssueSink& sink);

}  // namespace vm_platform
