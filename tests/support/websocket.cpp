#include "tests/support/websocket.hpp"

#include <stdexcept>

namespace sluice::support {

std::string client_frame(const Frame &frame, Mask mask) {
  constexpr unsigned char kKey[4] = {0x5a, 0x17, 0xc3, 0x88};
  std::string out;
  out += static_cast<char>((frame.fin ? 0x80 : 0) | frame.reserved_bits << 4 | frame.opcode);
  const int mask_bit = mask == Mask::kYes ? 0x80 : 0;
  const size_t n = frame.payload.size();
  const int length_bytes = n < 126 ? 0 : n < 65536 ? 2 : 8;
  out += static_cast<char>(mask_bit | (length_bytes == 0 ? static_cast<int>(n) : length_bytes == 2 ? 126 : 127));
  for (int i = length_bytes - 1; i >= 0; --i) out += static_cast<char>(n >> (8 * i) & 0xff);
  if (mask == Mask::kNo) return out + frame.payload;
  for (const unsigned char k : kKey) out += static_cast<char>(k);
  for (size_t i = 0; i < n; ++i) out += static_cast<char>(static_cast<unsigned char>(frame.payload[i]) ^ kKey[i % 4]);
  return out;
}

std::string client_text(std::string_view payload) { return client_frame({true, 0, kText, std::string(payload)}); }

std::optional<Frame> FrameReader::next() {
  const auto byte = [this](size_t i) { return static_cast<unsigned char>(bytes_[i]); };
  if (broken_ || bytes_.size() < 2) return std::nullopt;
  if ((byte(1) & 0x80) != 0) {
    broken_ = true;
    return std::nullopt;
  }
  uint64_t length = byte(1) & 0x7f;
  const size_t length_bytes = length == 126 ? 2 : length == 127 ? 8 : 0;
  if (bytes_.size() < 2 + length_bytes) return std::nullopt;
  if (length_bytes != 0) length = 0;
  for (size_t i = 0; i < length_bytes; ++i) length = length << 8 | byte(2 + i);
  if (bytes_.size() - 2 - length_bytes < length) return std::nullopt;
  Frame frame{(byte(0) & 0x80) != 0, static_cast<uint8_t>(byte(0) >> 4 & 7), static_cast<uint8_t>(byte(0) & 15),
              bytes_.substr(2 + length_bytes, length)};
  bytes_.erase(0, 2 + length_bytes + length);
  return frame;
}

std::string upgrade_bytes(const Headers &headers, std::string_view path) {
  Headers all{{"Upgrade", "websocket"},
              {"Connection", "Upgrade"},
              {"Sec-WebSocket-Version", "13"},
              {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}};
  all.insert(all.end(), headers.begin(), headers.end());
  return request_bytes("GET", path, {}, all);
}

WsClient::WsClient(uint16_t port, const Headers &headers) : client_(port) {
  client_.send(upgrade_bytes(headers));
  std::string left;
  const Response response = read_response(client_, left);
  handshake_ = response.reader;
  if (response.status != 101)
    throw std::runtime_error("no upgrade: " + std::to_string(response.status) + ' ' + response.body);
  if (response.header("sec-websocket-accept") != kUpgradeAccept)
    throw std::runtime_error("a wrong sec-websocket-accept");
  reader_.feed(left);
}

std::optional<Frame> WsClient::receive(std::chrono::milliseconds patience) {
  while (true) {
    while (auto frame = reader_.next()) {
      if (frame->opcode == kPing) {
        client_.try_send(client_frame({true, 0, kPong, frame->payload}));
      } else if (frame->opcode != kPong) {
        return frame;
      }
    }
    if (reader_.broken()) throw std::runtime_error("the server masked a frame");
    const std::string bytes = client_.receive(patience);
    if (bytes.empty()) return std::nullopt;
    reader_.feed(bytes);
  }
}

uint16_t close_code_of(const Frame &close) {
  if (close.payload.size() < 2) return 1005;
  return static_cast<uint16_t>(static_cast<unsigned char>(close.payload[0]) << 8 |
                               static_cast<unsigned char>(close.payload[1]));
}

uint16_t WsClient::close_code() {
  while (const auto frame = receive()) {
    if (frame->opcode != kClose) continue;
    client_.try_send(client_frame({true, 0, kClose, frame->payload.substr(0, 2)}));
    return close_code_of(*frame);
  }
  return 1006;
}

}  // namespace sluice::support
