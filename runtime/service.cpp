// RuntimeService: runtimes by name.
#include <utility>
#include <vm_platform/runtime.hpp>

namespace vm_platform {
namespace {
std::unexpected<VmError> unknown(const char* operation, const std::string& name) {
  return fail(ErrorCode::NotFound, operation, name, "no guest has this name");
}
}  // namespace

Result<std::shared_ptr<RuntimeController>> RuntimeService::create(RuntimeConfig config) {
  const std::string name = config.name;
  const auto taken = [&] { return fail(ErrorCode::Busy, "create guest", name, "a guest has this name already"); };
  {
    // The name is taken first, so that two calls do not both load a kernel, and without holding the lock meanwhile.
    const std::lock_guard lock(mutex_);
    if (!entries_.try_emplace(name).second) return taken();
  }
  auto runtime = Runtime::create(std::move(config));
  const std::lock_guard lock(mutex_);
  if (!runtime) {
    entries_.erase(name);
    return fail(runtime.error());
  }
  Entry& entry = entries_[name];
  entry.runtime = std::move(*runtime);
  entry.controller = std::make_shared<SimpleRuntimeController>(entry.runtime);
  return entry.controller;
}

Result<std::shared_ptr<RuntimeController>> RuntimeService::find(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end() || !entry->second.controller) return unknown("find guest", name);
  return entry->second.controller;
}

Result<std::shared_ptr<Runtime>> RuntimeService::runtime(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(name);
  if (entry == entries_.end() || !entry->second.runtime) return unknown("find guest", name);
  return entry->second.runtime;
}

Result<void> RuntimeService::remove(const std::string& name) {
  Entry entry;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end() || !found->second.controller) return unknown("remove guest", name);
    entry = std::move(found->second);
    entries_.erase(found);
  }
  return entry.controller->execute(RuntimeCommand::Stop);
}

std::vector<std::string> RuntimeService::names() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) {
    if (entry.controller) names.push_back(name);
  }
  return names;
}

}  // namespace vm_platform
