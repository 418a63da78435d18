"What every stage needs and no paper is about: settings, files, folders, devices, processes."
