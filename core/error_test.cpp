#include <gtest/gtest.h>

#include <cerrno>
#include <vm_platform/core.hpp>

namespace vm_platform {
namespace {

TEST(VmErrorTest, MessageNamesOperationSubjectReasonAndFix) {
  const VmError error = VmError::from_os(EACCES, "open", "/dev/kvm").with_hint("add yourself to group kvm");
  EXPECT_EQ(error.message(), "open /dev/kvm: Permission denied; add yourself to group kvm");
  EXPECT_EQ(error.code(), ErrorCode::PermissionDenied);
  EXPECT_EQ(error.os_error(), EACCES);
}

TEST(VmErrorTest, WithoutReasonTheCodeSpeaks) {
  EXPECT_EQ(VmError(ErrorCode::Unsupported, "reset", "0000:01:00.0").message(), "reset 0000:01:00.0: not supported");
}

TEST(VmErrorTest, DetailIsCarried) {
  const VmError error =
      VmError(ErrorCode::Custom, "map", "x").with_detail(std::make_error_code(std::errc::too_many_links));
  EXPECT_EQ(error.detail(), std::errc::too_many_links);
}

#ifdef _WIN32
TEST(VmErrorTest, WindowsErrorsHaveTheirOwnNumbers) {
  const VmError error = VmError::from_last_error(5, "open", "file");  // ERROR_ACCESS_DENIED
  EXPECT_EQ(error.code(), ErrorCode::PermissionDenied);
  EXPECT_FALSE(error.reason().empty());
  EXPECT_EQ(error.os_error(), 5);
}
#endif

TEST(ParseSizeTest, AcceptsNumbersAndSuffixes) {
  EXPECT_EQ(parse_size("4096").value(), 4096u);
  EXPECT_EQ(parse_size("64K").value(), 64u * kKiB);
  EXPECT_EQ(parse_size("512M").value(), 512u * kMiB);
  EXPECT_EQ(parse_size("2GiB").value(), 2u * kGiB);
  EXPECT_FALSE(parse_size("5iB").has_value());
}

TEST(ParseSizeTest, RefusesEverythingElse) {
  for (const char* text : {"", "0", "M", "-1", "12Q", "1.5G", "99999999999999999999", "18446744073709551615K", "5 M"}) {
    EXPECT_FALSE(parse_size(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace vm_platform
