#include "core/plugin/registry.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "core/base/log.hpp"
#include "core/config/config.hpp"

namespace fs = std::filesystem;

namespace sluice::plugin {
namespace {

bool looks_like_plugin(const fs::path &file) {
  const std::string name = file.filename().string();
  return name.rfind("libsluice_", 0) == 0 && file.extension() == ".so";
}

/// Loading a file is running it, so whoever can change it can do all that the server can.
Result<> check_owner(const std::string &path) {
  const auto check = [&path](const std::string &what, bool is_folder) -> Result<> {
    struct stat s {};
    if (::stat(what.c_str(), &s) != 0) return Error{Code::kNotFound, what + ": " + std::strerror(errno), {}};
    const bool foreign = s.st_uid != 0 && s.st_uid != ::geteuid();
    // A group with the owner's own number is his private one, which a umask of 002 takes for granted.
    const mode_t others = S_IWOTH | (s.st_gid == s.st_uid ? 0 : S_IWGRP);
    // In a sticky folder only the owner can replace a file.
    const bool open = (s.st_mode & others) != 0 && !(is_folder && (s.st_mode & S_ISVTX) != 0);
    const char *why = foreign ? "belongs to another user" : "may be written by others";
    if (!foreign && !open) return {};
    return Error{Code::kInvalidArgument,
                 fmt::format("{} is refused: {} {} (mode {:o}, owner {}); make it yours or root's with mode {}, or set "
                             "plugins.insecure = true",
                             path, is_folder ? "its folder" : "it", why, s.st_mode & 07777, s.st_uid,
                             is_folder ? "755" : "644"),
                 {}};
  };
  if (auto r = check(fs::path(path).parent_path().string(), true); !r) return r;
  return check(path, false);
}

}  // namespace

Result<std::vector<std::string>> search_folders(const std::vector<std::string> &configured) {
  std::vector<std::string> folders = configured;
  if (const char *variable = std::getenv("SLUICE_PLUGIN_PATH")) {
    std::istringstream parts(variable);
    for (std::string part; std::getline(parts, part, ':');)
      if (!part.empty()) folders.push_back(part);
  }
  for (const std::string &folder : folders)
    if (!fs::path(folder).is_absolute())
      return invalid_argument(fmt::format("the plugin folder '{}' is a relative path; it must be absolute", folder),
                              "plugins.dirs");
  std::error_code none;
  const fs::path executable = fs::read_symlink("/proc/self/exe", none);
  if (!none) folders.push_back((executable.parent_path().parent_path() / "lib/sluice/plugins").string());
  return folders;
}

Registry::Registry(const std::vector<std::string> &folders, bool accept_insecure) {
  for (const std::string &folder : folders) scan(folder, accept_insecure);
  std::sort(found_.begin(), found_.end(), [](const Found &a, const Found &b) {
    return std::tie(a.metadata.name, a.path) < std::tie(b.metadata.name, b.path);
  });
}

void Registry::scan(const std::string &folder, bool accept_insecure) {
  std::error_code error;
  fs::directory_iterator files(folder, error);
  if (error) {
    if (error != std::errc::no_such_file_or_directory)
      rejected_.push_back({folder, {Code::kNotFound, folder + ": " + error.message(), {}}});
    return;
  }
  std::vector<std::string> paths;
  for (const auto end = fs::directory_iterator(); files != end; files.increment(error)) {
    if (error) break;
    if (!looks_like_plugin(files->path())) continue;
    const fs::path real = fs::canonical(files->path(), error);
    paths.push_back(error ? files->path().string() : real.string());
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string &path : paths) {
    const auto same = [&](const auto &entry) { return entry.path == path; };  // a folder may be listed twice
    if (std::any_of(found_.begin(), found_.end(), same) || std::any_of(rejected_.begin(), rejected_.end(), same))
      continue;
    const Result<> owner = accept_insecure ? Result<>() : check_owner(path);
    if (!owner) {
      rejected_.push_back({path, owner.error()});
    } else if (auto metadata = read_metadata(path)) {
      found_.push_back({std::move(*metadata), path});
    } else {
      rejected_.push_back({path, metadata.error()});
    }
  }
}

Result<const Found *> Registry::find(uint64_t kind, const std::string &name) const {
  const Found *match = nullptr;
  std::vector<std::string> names;
  for (const Found &f : found_) {
    if ((f.metadata.kinds & kind) == 0) continue;
    if (names.empty() || names.back() != f.metadata.name) names.push_back(f.metadata.name);
    if (f.metadata.name != name) continue;
    if (match != nullptr)
      return invalid_argument(fmt::format("{} {} is ambiguous: {} and {} both claim the name; remove one of them",
                                          kind_name(kind), name, match->path, f.path));
    match = &f;
  }
  if (match != nullptr) return match;

  const std::string file = fmt::format("libsluice_{}_{}.so", kind_name(kind), name);
  for (const Rejected &r : rejected_)
    if (fs::path(r.path).filename() == file) return r.error;
  const std::string near = config::nearest(name, names);
  return Error{Code::kNotFound,
               fmt::format("there is no {} called '{}'{}; {}", kind_name(kind), name,
                           near.empty() ? "" : fmt::format(", did you mean '{}'?", near),
                           names.empty() ? "none was found at all (plugins.dirs, $SLUICE_PLUGIN_PATH)"
                                         : fmt::format("there are {}", fmt::join(names, ", "))),
               {}};
}

Result<const Library *> Registry::load(uint64_t kind, const std::string &name, const sluice_host_api &host) {
  const auto found = find(kind, name);
  if (!found) return found.error();
  for (const auto &library : loaded_)
    if (library->path == (*found)->path) return library.get();
  auto library = load_library((*found)->path, (*found)->metadata, host);
  if (!library) return library.error();
  loaded_.push_back(std::make_unique<Library>(std::move(*library)));
  return loaded_.back().get();
}

void Registry::shutdown() {
  for (auto it = loaded_.rbegin(); it != loaded_.rend(); ++it) {
    if ((*it)->desc->shutdown == nullptr) continue;
    try {
      (*it)->desc->shutdown();
    } catch (...) {
      log::error("plugin", "{}: shutdown threw", (*it)->title());
    }
  }
  loaded_.clear();
}

}  // namespace sluice::plugin
