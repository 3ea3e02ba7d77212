# cmake -DDIR=folder -DFILES=a;b -DOUT=file.cc -P embed_files.cmake: files as bytes of a C++ source, with their types and
# hashes. Run by the build whenever one of them has changed.
set(types_html "text/html; charset=utf-8")
set(types_js "text/javascript; charset=utf-8")
set(types_css "text/css; charset=utf-8")
set(types_svg "image/svg+xml")
set(types_json "application/json")
set(types_txt "text/plain; charset=utf-8")
set(types_png "image/png")

set(arrays "")
set(rows "")
set(index 0)
foreach(file ${FILES})
  get_filename_component(extension ${file} LAST_EXT)
  string(SUBSTRING ${extension} 1 -1 extension)
  if(NOT DEFINED types_${extension})
    message(FATAL_ERROR "no content type is known for ${file}")
  endif()
  file(READ ${DIR}/${file} hex HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
  string(REPLACE "0x0a," "0x0a,\n    " bytes "${bytes}")
  file(SIZE ${DIR}/${file} size)
  file(SHA256 ${DIR}/${file} hash)
  string(SUBSTRING ${hash} 0 16 hash)
  string(APPEND arrays "constexpr unsigned char kFile${index}[] = {\n    ${bytes}};\n\n")
  string(APPEND rows "      {\"/${file}\", \"${types_${extension}}\", \"\\\"${hash}\\\"\", {reinterpret_cast<const char*>(kFile${index}), ${size}}},\n")
  math(EXPR index "${index} + 1")
endforeach()

file(WRITE ${OUT}.new "#include \"bridges/sse/http/embedded_files.h\"

namespace runnel::sse {
namespace {

${arrays}}  // namespace

const std::vector<StaticFile>& EmbeddedFiles() {
  static const std::vector<StaticFile> files = {
${rows}  };
  return files;
}

}  // namespace runnel::sse
")
file(RENAME ${OUT}.new ${OUT})
