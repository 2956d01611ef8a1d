// sluice/sdk/error.hpp - exceptions stop here.
#pragma once
#include <sluice/abi/status.h>

#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>

namespace sluice::sdk {
inline namespace v0 {

/// What a plugin throws to return a certain code. Says the thing, the value and the remedy.
struct Error : std::runtime_error {
  int32_t code;  ///< SLUICE_E_*
  Error(int32_t error_code, const std::string &message) : std::runtime_error(message), code(error_code) {}
};

/// Writes a status, which may be null, and returns the code. Long text is cut between two UTF-8 characters.
inline int32_t fail(sluice_status *st, int32_t code, std::string_view message, uint32_t flags = 0) noexcept {
  if (!SLUICE_HAS(st, sluice_status, msg)) return code;
  constexpr size_t kRoom = sizeof st->msg - 1;
  if (message.size() > kRoom) {
    const auto continues = [&](size_t i) { return (static_cast<unsigned char>(message[i]) & 0xC0u) == 0x80u; };
    size_t cut = kRoom;
    while (cut > 0 && continues(cut)) --cut;
    message = message.substr(0, cut);
  }
  st->msg[message.copy(st->msg, kRoom)] = '\0';
  st->msg_len = static_cast<uint32_t>(message.size());
  st->flags = flags;
  return st->code = code;
}

/// Runs f and turns what it throws into a code. Nothing that a plugin hands out may be called but through here.
/// An exception that nobody planned may have left half-changed state behind, so it poisons the instance.
template <class F> int32_t guard(sluice_status *st, F &&f) noexcept {
  try {
    f();
    return SLUICE_OK;
  } catch (const Error &e) {
    return fail(st, e.code == SLUICE_OK ? SLUICE_E_INTERNAL : e.code, e.what());
  } catch (const std::bad_alloc &) {
    return fail(st, SLUICE_E_RESOURCE_EXHAUSTED, "out of host memory");
  } catch (const std::exception &e) {
    return fail(st, SLUICE_E_INTERNAL, e.what(), SLUICE_STF_POISONED);
  } catch (...) {
    return fail(st, SLUICE_E_INTERNAL, "an exception that is no std::exception", SLUICE_STF_POISONED);
  }
}

/// The pointers of a call are there; else INVALID_ARGUMENT.
template <class... P> void need(const P *...pointers) {
  if (!(pointers && ...)) throw Error(SLUICE_E_INVALID_ARGUMENT, "a required pointer is NULL");
}

/// Copies a struct to a caller who may know fewer fields, or more: no byte beyond the room he has, nor beyond `value`.
template <class S> void give(S *out, const S &value) {
  need(out);
  const uint32_t n = out->struct_size < value.struct_size ? out->struct_size : value.struct_size;
  if (n < sizeof n) throw Error(SLUICE_E_INVALID_ARGUMENT, "struct_size is not set");
  std::memcpy(static_cast<void *>(out), &value, n);
  out->struct_size = n;
}

}  // namespace v0
}  // namespace sluice::sdk
