// A small writer of disc images for tests: every byte of every record can be what no honest tool would write.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform::iso::testing {

/// Numbers as bytes.
std::string le16(std::uint32_t value);
std::string le32(std::uint32_t value);
std::string be32(std::uint32_t value);
std::string both16(std::uint32_t value);
std::string both32(std::uint32_t value);
std::string utf16be(std::u16string_view text);

/// System use fields.
std::string field(std::string_view signature, std::string_view data, std::uint8_t version = 1);
std::string sp(std::uint8_t skip = 0);
std::string er();
std::string px(std::uint32_t mode, std::uint32_t links = 1, std::uint32_t uid = 0, std::uint32_t gid = 0);
std::string nm(std::string_view name, std::uint8_t flags = 0);
std::string ce(std::uint32_t block, std::uint32_t offset, std::uint32_t size);
std::string sl(std::string_view components, std::uint8_t flags = 0);
std::string sl_component(std::string_view text, std::uint8_t flags = 0);
std::string zf(std::uint32_t size, std::uint8_t log2 = 15);

/// A directory record.
struct TestRecord {
  std::string identifier;
  std::uint32_t block = 0;
  std::uint32_t size = 0;
  std::uint8_t flags = 0;  ///< 2 for a directory.
  std::string system_use = {};
  std::uint8_t extended_attribute_blocks = 0;
  std::uint8_t unit = 0, gap = 0;
};
std::string record_bytes(const TestRecord& record);

class TestImage {
 public:
  explicit TestImage(std::uint32_t block_size = 2048) : block_size_(block_size) { bytes_.resize(64 * 2048); }

  /// Blocks at the end; the first is returned.
  std::uint32_t allocate(std::uint32_t size);
  void put(std::uint64_t offset, std::string_view data);
  /// A file's content in blocks of its own.
  std::uint32_t add_file(std::string_view content);
  /// A directory's extent; returns its block. `.` and `..` come first unless `raw`.
  std::uint32_t add_directory(const std::vector<TestRecord>& records, std::string_view dot_system_use = {},
                              std::uint32_t parent = 0);
  /// Bytes of the directory added last.
  [[nodiscard]] std::uint32_t directory_size() const { return directory_size_; }

  /// Volume descriptors take the sectors from 16 on, in the order of the calls.
  void add_primary(std::uint32_t root, std::uint32_t root_size, std::string_view volume_id = "TEST");
  void add_joliet(std::uint32_t root, std::uint32_t root_size, char level = 'E');
  void add_enhanced(std::uint32_t root, std::uint32_t root_size);
  void add_boot_record(std::uint32_t catalog_block);
  void add_terminator();
  void add_descriptor(std::string_view sector);

  [[nodiscard]] std::span<const std::byte> bytes() const { return std::as_bytes(std::span(bytes_)); }
  [[nodiscard]] std::vector<char>& raw() { return bytes_; }
  /// Sectors of 2352 bytes around the same data; mode 1 or 2.
  [[nodiscard]] std::vector<char> as_raw_sectors(std::uint8_t mode) const;

 private:
  std::string descriptor(char type, char version, std::uint32_t root, std::uint32_t root_size) const;
  std::uint32_t block_size_;
  std::uint32_t directory_size_ = 0;
  std::uint32_t next_descriptor_ = 16;
  std::vector<char> bytes_;
};

}  // namespace vm_platform::iso::testing
