#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/config/config.hpp"

namespace sluice::config {

/// A folder of its own and an environment without SLUICE_ variables, both put back afterwards.
class Sandbox : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-config-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::vector<std::string> names;
    for (char **entry = environ; *entry != nullptr; ++entry)
      if (const std::string text = *entry; text.starts_with("SLUICE_")) names.push_back(text.substr(0, text.find('=')));
    for (const std::string &name : names) unsetenv(name.c_str());
  }

  void TearDown() override {
    for (const std::string &name : variables_) unsetenv(name.c_str());
    std::filesystem::remove_all(folder_);
  }

  void variable(const std::string &name, const std::string &value) {
    setenv(name.c_str(), value.c_str(), 1);
    variables_.push_back(name);
  }

  std::string write(const std::string &name, const std::string &text, int mode = 0600) {
    const std::string path = folder_ + "/" + name;
    std::filesystem::remove(path);  // truncating a file that exists waits for the disk on ext4
    std::ofstream(path, std::ios::binary) << text;
    std::filesystem::permissions(path, static_cast<std::filesystem::perms>(mode));
    return path;
  }

  Loaded load_text(const std::string &text, std::vector<Override> flags = {}) {
    return load({write("c.toml", text), std::move(flags), true});
  }

  static std::string all(const Loaded &loaded) {
    std::string out;
    for (const Problem &problem : loaded.problems) out += to_string(problem) + "\n";
    return out;
  }

  /// The problems of a text, without the folder in front.
  std::string problems_of(const std::string &text, std::vector<Override> flags = {}) {
    std::string out = all(load_text(text, std::move(flags)));
    for (size_t at; (at = out.find(folder_ + "/")) != std::string::npos;) out.erase(at, folder_.size() + 1);
    return out;
  }

  std::string folder_;

 private:
  std::vector<std::string> variables_;
};

}  // namespace sluice::config
