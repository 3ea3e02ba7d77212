#pragma once

#include <cstdint>

// The close codes that the bridge sends; websocket.proto specifies when. Beast itself sends 1002, 1007 and 1009.
namespace runnel::websocket {

inline constexpr uint16_t kCloseGoingAway = 1001;
inline constexpr uint16_t kCloseUnsupported = 1003;
inline constexpr uint16_t kCloseNotText = 1007;
inline constexpr uint16_t kClosePolicy = 1008;
inline constexpr uint16_t kCloseFault = 1011;
inline constexpr uint16_t kCloseBusy = 1013;
inline constexpr uint16_t kCloseUnauthenticated = 4401;
inline constexpr uint16_t kCloseTooLate = 4408;
inline constexpr uint16_t kCloseTooManyStreams = 4429;
inline constexpr uint16_t kCloseSlow = 4499;

}  // namespace runnel::websocket
