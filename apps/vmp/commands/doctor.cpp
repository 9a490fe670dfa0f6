// vmp doctor: what is missing or slow on this host, what it costs, and what fixes it.
#include <fmt/color.h>
#include <fmt/core.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <vm_platform/platform.hpp>

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {
namespace {

using Severity = HostFinding::Severity;

void print(const HostFinding& finding, bool colours) {
  const auto style = [&] {
    if (!colours) return fmt::text_style();
    switch (finding.severity) {
      case Severity::Good: return fmt::text_style(fmt::fg(fmt::terminal_color::green));
      case Severity::Note: return fmt::text_style(fmt::fg(fmt::terminal_color::cyan));
      case Severity::Slow: return fmt::text_style(fmt::fg(fmt::terminal_color::yellow));
      case Severity::Missing: return fmt::text_style(fmt::fg(fmt::terminal_color::red));
    }
    return fmt::text_style();
  };
  fmt::print("{} {:<23} {}\n", fmt::format(style(), "{:<8}", to_string(finding.severity)), finding.id, finding.what);
  if (!finding.cost.empty()) fmt::print("{:<33}cost: {}\n", "", finding.cost);
  if (!finding.fix.empty()) fmt::print("{:<33}fix:  {}\n", "", finding.fix);
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  const auto as_json = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("doctor", "Say what is missing or slow on this host, and how to fix it");
  command->add_flag("--json", *as_json, "Print one JSON document instead of text");
  command->footer(
      "Exit status 0 whatever is found: guests run without any of it.\n\n"
      "Examples:\n"
      "  vmp doctor\n"
      "  vmp doctor --json | jq -r '.findings[] | select(.severity != \"good\") | .fix'");
  command->callback([&action, as_json] {
    action = [as_json] {
      const auto info = PlatformInfo::detect();
      if (!info) return report(info.error());
      const auto findings = diagnose_host(*info, PlatformFeatures::detect());
      if (*as_json) {
        nlohmann::json list = nlohmann::json::array();
        for (const HostFinding& finding : findings)
          list.push_back({{"id", finding.id},
                          {"severity", to_string(finding.severity)},
                          {"what", finding.what},
                          {"cost", finding.cost},
                          {"fix", finding.fix}});
        fmt::print("{}\n", nlohmann::json{{"findings", list}}.dump(2));
        return static_cast<int>(kDone);
      }
      const bool colours = ::isatty(STDOUT_FILENO) != 0;
      for (const HostFinding& finding : findings) print(finding, colours);
      return static_cast<int>(kDone);
    };
  });
}

}  // namespace vm_platform::vmp
