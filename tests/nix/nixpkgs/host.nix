# What the stand-in's programs are; the tests write the real paths of the machine that they run on.
{
  python = "/usr/bin/python3.12";
  path = "/usr/bin:/bin";
}
