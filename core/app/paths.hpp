#pragma once
#include <string>

namespace sluice::app {

/// The folder above the one that the running program lies in: an installation's prefix, or a build tree laid out alike.
std::string prefix();

/// PREFIX/share/sluice/models/sluice-tiny-q8_0.gguf, the model that ships; may not exist.
std::string default_model_path();

/// The path itself when it is absolute, else from the working directory; links are kept.
std::string absolute_path(const std::string &path);

}  // namespace sluice::app
