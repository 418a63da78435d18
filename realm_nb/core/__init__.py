"What every stage needs and no paper is about: settings, errors, files, folders, devices, processes."
